from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from curves import curve
from matplotlib.figure import Figure

from trainscope.convergence import Interval, LearningCurve, estimate_extra_epochs
from trainscope.report.convergence_display import ConvergenceDisplay

SMALL, LARGE = curve(30, pace=8, lr=0.0125, noise=0.2), curve(200, lr=0.1, noise=0.2, seed=1)


def draw(target, small=SMALL, reference=LARGE):
    estimate = estimate_extra_epochs(small, target, reference)
    axes = Figure().subplots()
    return estimate, ConvergenceDisplay.from_estimate(estimate, small, reference).plot(axes)


def test_it_shows_both_runs_the_band_the_target_and_the_interval():
    estimate, shown = draw(66.0)
    lines = {line.get_label(): line for line in shown.ax_.lines}
    assert lines["watched, LR 0.0125"].get_ydata() == pytest.approx(SMALL.accuracy[1:])
    assert lines["reference, LR 0.1"].get_xdata() == pytest.approx(LARGE.epochs[1:])
    assert lines["predicted, 80 % band"].get_ydata() == pytest.approx(estimate.curve.median)
    passage = estimate.first_passage
    assert lines[f"first passage, epoch {passage}"].get_xdata() == [passage.median]
    ends = [tuple(line.get_xdata()) for line in shown.ax_.lines]
    assert (passage.low, passage.high) in ends
    assert shown.figure_ is shown.ax_.figure


def test_no_passage_is_drawn_that_is_less_likely_than_not():
    estimate = replace(estimate_extra_epochs(SMALL, 66.0, LARGE), reachable=0.33)
    drawn = {}
    for chance in (0.33, 0.5):
        shown = ConvergenceDisplay(replace(estimate, reachable=chance), SMALL, LARGE)
        shown.plot(Figure().subplots())
        drawn[chance] = {str(line.get_label()) for line in shown.ax_.lines}
    passage = f"first passage, epoch {estimate.first_passage}"
    assert "target, 66.00 %, reached with probability 0.33" in drawn[0.33]
    assert passage not in drawn[0.33]
    assert {passage, "target, 66.00 %"} <= drawn[0.5]


def test_an_end_at_the_horizon_is_an_arrow_and_a_median_there_is_not_drawn():
    estimate = replace(estimate_extra_epochs(SMALL, 66.0, LARGE), reachable=0.8)

    def drawn(median):
        late = Interval(median, 40.0, 3000.0, horizon=3000.0, beyond=0.2)
        shown = ConvergenceDisplay(replace(estimate, first_passage=late), SMALL, LARGE)
        shown.plot(Figure().subplots())
        return shown.ax_.lines

    lines = drawn(90.0)
    labels = {str(line.get_label()) for line in lines}
    assert (
        "first passage, epoch 90 (40 or later; not within 3000 epochs with probability 0.20)"
    ) in labels
    assert [line.get_marker() for line in lines].count(">") == 1
    assert not any(3000.0 in line.get_xdata() for line in lines)
    lines = drawn(3000.0)
    assert "target, 66.00 %, not within 3000 epochs with probability 0.20" in {
        str(line.get_label()) for line in lines
    }
    assert not any(3000.0 in line.get_xdata() for line in lines)


@pytest.mark.parametrize(
    ("target", "small", "reference"),
    [
        (101.0, SMALL, None),
        (60.0, LearningCurve([], [], []), None),
        (60.0, LearningCurve([1], [50.0], 0.1), None),
        (99.9, SMALL, None),
        (20.0, SMALL, LARGE),
    ],
)
def test_what_has_no_answer_is_drawn_too(target, small, reference):
    estimate, shown = draw(target, small, reference)
    assert shown.ax_.get_title().endswith(str(estimate.status))
    for line in shown.ax_.lines:
        assert all(math.isfinite(float(x)) for x in line.get_xdata())
    shown.figure_.canvas.draw()


def test_a_run_with_a_warm_up_is_named_by_its_peak_lr() -> None:
    lr = np.full(40, 0.0125)
    lr[:3] = 0.001, 0.005, 0.009
    small = LearningCurve(np.arange(1, 41), 90 - 60 / np.arange(1, 41), lr=lr)
    estimate = estimate_extra_epochs(small, target=89.0)
    shown = ConvergenceDisplay.from_estimate(estimate, small).plot()
    assert "watched, peak LR 0.0125" in [line.get_label() for line in shown.ax_.get_lines()]
