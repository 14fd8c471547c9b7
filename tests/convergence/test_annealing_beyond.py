"""What the law of schedules does not see: other LRs, further ends, tests that are fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, estimate_extra_epochs
from trainscope.convergence.annealing import PRIOR, fit_law
from trainscope.convergence.annealing_evidence import helped_share
from trainscope.convergence.estimate import Interval
from trainscope.convergence.plan import read_plan
from trainscope.convergence.prospect import prospect
from trainscope.convergence.scale import shared_scale
from trainscope.convergence.scheduled import final_of
from trainscope.convergence.track import Track
from trainscope.records import Metric


def accuracy_at(lr: float, count: int) -> LearningCurve:
    """Return an accuracy that rises by two points a doubling of the epochs."""
    epochs = np.arange(1.0, count + 1)
    noise = np.random.default_rng(0).normal(0, 0.1, count)
    return LearningCurve(epochs, 60 + 3 * np.log(epochs) + noise, lr)


def test_a_plan_at_another_lr_is_less_sure_the_further_it_is_and_never_absurdly() -> None:
    small, now = accuracy_at(0.01, 30), 60 + 3 * np.log(30)

    def end(lr: float, then: str = "") -> Interval:
        plan = f"0:{lr}{then}"
        found = estimate_extra_epochs(small, 99, schedule=plan, total_epochs=40).final
        assert found is not None
        return found

    def width(lr: float, then: str = "") -> float:
        return end(lr, then).high - end(lr, then).low

    assert width(0.01) < width(0.02) < width(0.04) < width(0.1)
    assert width(0.01) < width(0.005) < width(0.0025)
    # Its decays give back what a larger LR is unsure of: from 1.6 rises a unit of log LR to 0.8.
    assert width(0.04, ",38:0.01") < 0.7 * width(0.04)
    # What the curve moved over the last factor of ten in epochs is 6.9 points.
    assert now - 20 < end(0.1).low < end(0.1).high < now + 20


@pytest.mark.parametrize(("lr", "more"), [(0.005, 1.05), (0.01, 1.0), (0.0025, 1.1), (0.04, 1.1)])
def test_no_law_is_sure_of_a_peak_that_no_run_had(lr: float, more: float) -> None:
    small, plan = accuracy_at(0.01, 30), read_plan(f"0:{lr}", 40)
    widths = []
    for prior in (PRIOR, replace(PRIOR, above=0.0, below=0.0, still=(0.0, 0.0))):
        law = fit_law([small], prior)
        assert law is not None
        low, high = np.quantile(prospect(law, plan, None, 30.0).final(), (0.1, 0.9))
        widths.append(high - low)
    if more == 1.0:
        assert widths[0] == widths[1]
    assert widths[0] >= more * widths[1]


@pytest.mark.parametrize(("percent", "still"), [(True, 1.6), (False, 2.4)])
def test_a_larger_lr_is_less_known_while_it_lasts(percent: bool, still: float) -> None:
    curve = accuracy_at(0.01, 30)
    if not percent:
        curve = LearningCurve(curve.epochs, lr=0.01, metric=curve.accuracy, better="higher")
    curve = curve.on(shared_scale([curve]))
    track, at = read_plan("0:0.04,35:0.01", 40).track, np.array([30.0, 34.0, 39.0])
    told = []
    for prior in (PRIOR, replace(PRIOR, still=(0.0, 0.0)), replace(PRIOR, ahead=0.0, above=0.0)):
        law = fit_law([curve], replace(prior, turned=0.0))
        assert law is not None
        told.append(law.quality(track, at, 30.0))
    law = fit_law([curve], replace(PRIOR, still=(0.0, 0.0), ahead=0.0, above=0.0, turned=0.0))
    assert law is not None
    without = law.quality(track, at, 30.0)
    alone = law.rise * law.sway * np.log(4)
    assert told[2][:, :2] - without[:, :2] == pytest.approx(still * np.stack([alone] * 2, axis=1))
    assert told[2][:, 2] == pytest.approx(without[:, 2])  # its LR has come down
    assert told[0][:, 2] == pytest.approx(told[1][:, 2])  # as unsure as any plan with that peak
    assert np.ptp(told[0][:, 1]) > np.ptp(told[1][:, 1])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loss_may_turn_where_a_plan_goes_further_than_any_run(sign: int) -> None:
    epochs = np.arange(1.0, 31)
    losses = 1 + 2 / np.sqrt(epochs) + np.random.default_rng(0).normal(0, 0.003, 30)
    better = "lower" if sign > 0 else "higher"
    small = LearningCurve(epochs, lr=0.1, metric=sign * losses, better=better)
    small = small.on(shared_scale([small]))
    told, plain = [], replace(PRIOR, turned=0.0)
    for prior in (PRIOR, plain):
        for total in (30.5, 90):
            plan = read_plan("0:0.1,27:0.05", total)
            law = fit_law([small], prior)
            assert law is not None
            on = small.on(shared_scale([small]))
            told.append(
                final_of(prospect(law, plan, Track.of(on), 30.0), on, plan, (0.5, 0.1, 0.9))
            )
    near, far, near_plain, far_plain = told
    assert far.median == far_plain.median
    best, worst = ("low", "high") if sign > 0 else ("high", "low")
    assert getattr(far, best) == getattr(far_plain, best)
    further = sign * (getattr(far, worst) - getattr(far_plain, worst))
    assert further > 0.01
    assert sign * (getattr(near, worst) - getattr(near_plain, worst)) < further / 10


def test_decays_help_a_test_loss_as_little_as_its_training_loss_is_below_it() -> None:
    epochs = np.arange(1.0, 41)
    losses = 1 + np.exp(-epochs / 8)

    def curve(training: float | None, metric: Metric) -> LearningCurve:
        values = np.exp(losses) if metric.name == "perplexity" else losses
        loss = None if training is None else training * losses
        found = LearningCurve(epochs, values, 0.1, loss, metric=metric)
        return found.on(shared_scale([found]))

    nats = Metric("test loss", "nats", "lower")
    for training, share in ((0.1, 0.0), (0.3, 0.0), (0.6, 0.5), (0.9, 1.0), (1.2, 1.0), (None, 1)):
        assert helped_share(curve(training, nats)) == pytest.approx(share, abs=1e-6)
    assert helped_share(curve(0.6, Metric("perplexity", "", "lower"))) == pytest.approx(0.5)
    assert helped_share(curve(0.1, Metric("RMSE", "m", "lower"))) == 1.0
    plan = {"schedule": "0:0.1,40:0.001", "total_epochs": 44}
    ends = [estimate_extra_epochs(curve(x, nats), 0.5, **plan).final for x in (0.2, 1.0)]
    gains = [losses[-1] - end.median for end in ends]
    assert gains[0] < 0.03
    assert gains[1] > 2 * gains[0]
    assert ends[0].high - ends[0].low < (ends[1].high - ends[1].low) / 2


def test_a_training_loss_that_is_lost_says_nothing_of_a_test_loss() -> None:
    epochs = np.arange(1.0, 41)
    loss = np.where(epochs > 20, np.nan, 0.1)
    curve = LearningCurve(epochs, 1 / epochs, 0.1, loss, metric=Metric("loss", "nats", "lower"))
    assert helped_share(curve) == 1.0


def test_a_loss_of_a_fitted_training_set_needs_more_epochs_than_the_law_says() -> None:
    epochs = np.arange(1.0, 41)
    losses = 1 + np.exp(-epochs / 8) + np.random.default_rng(0).normal(0, 0.002, 40)
    plan = {"schedule": "0:0.1,40:0.01", "total_epochs": 44}
    found = []
    for training in (losses, 0.2 * losses):
        small = LearningCurve(epochs, losses, 0.1, training, metric=Metric("loss", "nats", "lower"))
        found.append(estimate_extra_epochs(small, 0.95, **plan))
    fresh, fitted = found
    assert fitted.reachable < fresh.reachable
    assert fitted.extra_epochs.median > fresh.extra_epochs.median
    assert fitted.extra_epochs.high >= fresh.extra_epochs.high


def test_the_lr_of_a_schedule_holds_up_to_its_edges_and_goes_on() -> None:
    track = Track(np.array([3.0, 5.0]), np.array([0.1, 0.01]))
    assert track.rate(np.array([1.0, 3.0, 3.5, 5.0, 9.0])).tolist() == [0.1, 0.1, 0.01, 0.01, 0.01]


def test_the_lr_time_of_a_schedule_goes_on_with_its_last_lr() -> None:
    track = Track(np.array([2.0, 5.0]), np.array([0.1, 0.01]))
    assert track.lr_time(np.array([1.0, 2.0, 3.0, 5.0, 10.0])) == pytest.approx(
        [0.1, 0.2, 0.21, 0.23, 0.28]
    )


def cosine_run(training: float | None = None) -> LearningCurve:
    epochs = np.arange(1.0, 41)
    losses = 1 + np.exp(-epochs / 8)
    loss = None if training is None else training * losses
    return LearningCurve(epochs, losses, 0.1, loss, metric=Metric("test loss", "nats", "lower"))


def test_a_loss_turns_no_further_than_where_the_run_began() -> None:
    epochs = np.arange(1.0, 11)
    values = np.exp(2 + 3 / np.sqrt(epochs))
    small = LearningCurve(epochs, lr=1e-3, metric=values, better="lower", name="perplexity")
    for total in (30, 300, 3000):
        plan = {"schedule": f"0:1e-3,{0.9 * total}:1e-4", "total_epochs": total}
        end = estimate_extra_epochs(small, 10.0, **plan).final
        assert 1.0 <= end.low <= end.median <= end.high <= values[0]


def test_what_may_turn_is_not_sure_to_be_reached() -> None:
    plan = {"schedule": "0:.1,3600:.01", "total_epochs": 4000}
    found = estimate_extra_epochs(cosine_run(), 1.0, **plan)
    assert found.final.high > 1.0
    assert found.reachable < 0.99


@pytest.mark.parametrize(
    ("name", "unit", "helped"),
    [
        ("loss", "", 0.5),
        ("val_loss", "", 0.5),
        ("negative log-likelihood", "", 0.5),
        ("Dice loss", "", 1.0),
        ("loss", "J", 1.0),
        ("bits per byte", "bits", (0.6 / np.log(2) - 0.3) / 0.6),
    ],
)
def test_only_losses_in_one_unit_are_held_against_each_other(name, unit, helped) -> None:
    values = 1 + np.exp(-np.arange(1, 41) / 8)
    metric = Metric(name, unit, "lower")
    small = LearningCurve(np.arange(1, 41), values, 0.1, 0.6 * values, metric=metric)
    found = helped_share(small.on(shared_scale([small])))
    assert found == pytest.approx(min(helped, 1.0), abs=1e-6)


def test_a_loss_that_was_below_zero_may_end_there() -> None:
    values = -2 + np.exp(-np.arange(1, 41) / 8)
    small = LearningCurve(
        np.arange(1, 41), values, 0.1, metric=Metric("test loss", "nats", "lower")
    )
    end = estimate_extra_epochs(small, -2.1, schedule="0:.1,40:.01", total_epochs=50).final
    assert end.median < -1.9


@pytest.mark.parametrize(("name", "least"), [("val_loss", 0.0), ("perplexity", 1.0)])
def test_no_end_leaves_the_range_of_its_metric(name: str, least: float) -> None:
    epochs = np.arange(1.0, 41)
    values = least + 0.05 + 2 * epochs**-0.7
    small = LearningCurve(epochs, lr=0.1, metric=values, better="lower", name=name)
    plan = {"schedule": "0:.1,3000:.01", "total_epochs": 4000}
    found = estimate_extra_epochs(small, least + 0.05, **plan)
    assert found.final.low >= least
    assert min(found.curve.low, default=least) >= least
