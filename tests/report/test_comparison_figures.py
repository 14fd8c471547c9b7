from __future__ import annotations

import statistics

import pytest
from comparisons import LARGE, SMALL, five_settings, run, seeds
from diagnoses import diagnosis
from matplotlib.figure import Figure

from trainscope.records import Measurement, Scalar, Taken
from trainscope.report.along_display import AlongDisplay
from trainscope.report.comparison_figures import write_comparison_figures
from trainscope.report.learning_curve_display import LearningCurveDisplay
from trainscope.report.series import curve, lr_times
from trainscope.report.setting_display import SettingDisplay
from trainscope.studies.comparison import compare
from trainscope.studies.groups import group


def axes():
    return Figure().subplots()


def test_a_curve_is_the_mean_with_the_lowest_and_highest_seed():
    runs = seeds(3)
    (item,) = group(runs)
    found = curve(item)
    assert found.x == tuple(range(21))
    fifth = [made.epochs[4].test_accuracy for made in runs]
    assert found.mean[5] == pytest.approx(statistics.fmean(fifth))
    assert (found.low[5], found.high[5]) == (min(fifth), max(fifth))
    assert found.mean[0] == 10.0
    assert [found.x[k] for k in found.drops] == [10, 15]


def test_lr_time_is_the_running_sum_of_the_lr():
    times = lr_times(run())
    assert times[9] == pytest.approx(0.1)
    assert times[-1] == pytest.approx(0.1 + 0.005 + 0.0005)
    assert times[-1] == pytest.approx(run().lr_time)


@pytest.mark.parametrize("y", ["accuracy", "loss"])
@pytest.mark.parametrize("x", ["epoch", "lr_time"])
def test_learning_curves_have_a_line_a_setting_and_units(x, y):
    shown = LearningCurveDisplay.from_runs(five_settings(2), x=x, y=y).plot(axes())
    lines = [line for line in shown.ax_.lines if len(line.get_xdata()) > 1]
    assert [line.get_label() for line in lines] == [
        *("LR 1e-1", "LR 1e-2", "LR 1e-3", "LR 1e-3 (+60)", "LR 1e-4")
    ]
    assert ("[%]" if y == "accuracy" else "[nats]") in shown.ax_.get_ylabel()
    assert shown.ax_.get_xscale() == ("log" if x == "lr_time" else "linear")
    assert shown.figure_ is shown.ax_.figure
    assert len({line.get_color() for line in lines}) == 5


def test_a_decay_that_came_too_early_is_ringed():
    shown = LearningCurveDisplay.from_runs(five_settings(2)).plot(axes())
    assert shown.early
    assert set(shown.early.values()) <= {10, 70}
    rings = [line for line in shown.ax_.lines if line.get_fillstyle() == "none"]
    assert len(rings) == len(shown.early)
    assert not LearningCurveDisplay.from_runs(five_settings(2), y="loss").early


def test_settings_stand_side_by_side_or_against_the_ratio():
    alone = SettingDisplay.from_runs(five_settings(2)).plot(axes())
    assert [text.get_text() for text in alone.ax_.get_xticklabels()][1] == "LR 1e-2"
    sweep = [m for r in (0.5, 0.9) for s in (LARGE, SMALL) for m in seeds(2, ratio=r, schedule=s)]
    shown = SettingDisplay.from_runs(sweep, number="ta").plot(axes())
    assert shown.sweeps
    assert shown.ax_.get_xlabel() == "ratio"
    assert {point.line for point in shown.points} == {"LR 1e-2", "LR 1e-3"}
    assert sorted({point.x for point in shown.points}) == [0.5, 0.9]


def test_measurements_along_retraining():
    taken = tuple(
        Taken(
            Measurement("jacobian", scalars={"mean_jsv": Scalar.of(value, "logit/input")}),
            step,
            "after step",
            float(step),
        )
        for step, value in ((0, 0.1), (1, 0.5), (2, 0.9))
    )
    shown = AlongDisplay.from_runs(
        [run(measurements=taken)], probe="jacobian", scalar="mean_jsv"
    ).plot(axes())
    assert shown.ax_.lines[0].get_ydata().tolist() == [0.1, 0.5, 0.9]
    assert shown.ax_.get_ylabel() == "mean JSV [logit/input]"


def test_every_figure_is_written_as_svg_and_png(tmp_path):
    made = compare(five_settings(2), [diagnosis()])
    paths = write_comparison_figures(made, tmp_path)
    names = {path.stem for path in paths}
    assert names == {
        *("accuracy", "accuracy_lr_time", "loss", "loss_lr_time", "ta", "final_ratio"),
        "singular_values",
    } | {f"estimate_{k}" for k in range(1, 1 + len(made.estimates[:4]))}
    for path in paths:
        head = path.read_bytes()[:5]
        assert head == (b"<?xml" if path.suffix == ".svg" else b"\x89PNG\r")
