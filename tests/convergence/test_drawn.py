"""The predicted curve that is drawn: where it goes, and where it ends."""

from __future__ import annotations

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, estimate_extra_epochs


@pytest.mark.parametrize(
    ("scale", "power", "floor"),
    [(12, 0.25, 2.2), (30, 0.4, 2.8), (8, 0.15, 1.0), (20, 0.3, 2.4), (6, 0.1, 0.5)],
)
def test_the_drawn_curve_ends_where_levels_crowd_together(
    scale: float, power: float, floor: float
) -> None:
    """Far ahead it is no steeper over log time than the watched curve, by half at the most."""
    steps = np.arange(1, 35) * 200.0
    law = floor + scale * steps**-power
    loss = law + 0.003 * np.random.default_rng(0).standard_normal(len(steps))
    curve = LearningCurve(steps, lr=1e-3, metric=loss, better="lower", unit="nats", per="step")
    watched = -np.polyfit(np.log(steps[17:]), loss[17:], 1)[0]
    for share in (0.95, 0.9, 0.8):
        found = estimate_extra_epochs(curve, target=share * law[-1]).curve
        at, values = np.log(found.epochs), np.array(found.median)
        far = at[:-1] > at[0] + np.log(2)
        assert far.any()
        assert (-np.diff(values) / np.diff(at))[far].max() < 1.6 * watched


def slopes(at, values) -> np.ndarray:
    """Return slopes over log time of what lies more than a factor of two ahead."""
    log_time = np.log(at)
    far = log_time[:-1] > log_time[0] + np.log(2)
    assert far.any()
    return (np.diff(values) / np.diff(log_time))[far]


@pytest.mark.parametrize("seed", range(3))
def test_the_early_edge_of_the_band_does_not_shoot_up_where_levels_crowd(seed: int) -> None:
    """A network that rises slowly at first: few laws reach the highest levels, all of them fast."""
    epochs = np.arange(1, 31)
    noise = np.random.default_rng(seed).normal(0, 0.5, 30)
    small = LearningCurve(epochs, 70 - 30 * np.exp(-epochs / 60) + noise, 0.001)
    band = estimate_extra_epochs(small, 62.0).curve
    assert len(band.high) > 10
    whole = (band.high[-1] - band.high[0]) / np.log(band.epochs[-1] / band.epochs[0])
    assert slopes(band.epochs, band.high).max() < 2.5 * whole
    assert band.high[-1] < 90


def test_a_line_goes_on_through_levels_that_the_reference_had_before_its_first_records() -> None:
    """The reference rises fast: of what it passed between its first epochs little is known."""
    epochs = np.arange(1.0, 61)
    noise = np.random.default_rng(0).normal(0, 0.3, 72)
    large = LearningCurve(epochs, 90 - 50 * np.exp(-epochs / 5) + noise[:60], 0.01)
    small = LearningCurve(epochs[:12], 90 - 50 * np.exp(-epochs[:12] / 40) + noise[60:], 0.001)
    found = estimate_extra_epochs(small, 85.0, large)
    band, passage = found.curve, found.first_passage.median
    assert band.epochs[-1] > passage
    assert np.interp(passage, band.epochs, band.median) == pytest.approx(85.0, abs=0.5)


def test_no_line_goes_on_level_after_the_last_level_that_is_likely_reached() -> None:
    epochs = np.arange(1.0, 21)
    noise = np.random.default_rng(0).normal(0, 0.3, 20)
    small = LearningCurve(epochs, 90 - 50 * np.exp(-epochs / 15) + noise, 0.001)
    band = estimate_extra_epochs(small, 85.0).curve
    assert np.diff(band.median)[-5:].min() > 0


def logistic(at: np.ndarray, middle: float, width: float, top: float) -> np.ndarray:
    return np.round(top / (1 + np.exp(-(at - middle) / width)), 1)


def test_the_early_edge_ends_below_levels_that_all_come_at_its_last_time() -> None:
    epochs = np.arange(1.0, 21)
    small = LearningCurve(epochs, 10 + logistic(epochs, 60, 20, 80), 1e-3)
    large = LearningCurve(epochs, 10 + logistic(2 * epochs, 60, 20, 80), 2e-3)
    band = estimate_extra_epochs(small, 29.1, large).curve
    assert band.high[-1] - band.high[-2] < 5


@pytest.mark.parametrize("middle", [10, 15, 25])
@pytest.mark.parametrize("target", [90.0, 93.8])
def test_the_edges_of_the_band_do_not_cross(middle: int, target: float) -> None:
    small, large = np.arange(1.0, 31), np.arange(1.0, 61)
    run = LearningCurve(small, logistic(small, middle, 3, 94), 1e-3)
    reference = LearningCurve(large, np.minimum(logistic(2 * large, middle, 3, 94), 93.9), 2e-3)
    for its in (None, reference):
        band = estimate_extra_epochs(run, target, its).curve
        rows = zip(band.low, band.median, band.high, strict=True)
        assert all(low <= median <= high for low, median, high in rows)
    if band.high:
        assert max(band.median) < 96
