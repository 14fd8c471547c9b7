"""Runs that follow the annealing law: its powers, its ends and its errors are found again."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from trainscope.convergence import EstimateStatus, LearningCurve, estimate_extra_epochs
from trainscope.convergence.annealing import PRIOR, fit_law
from trainscope.convergence.annealing_evidence import clocks
from trainscope.convergence.plan import own_schedule, read_plan
from trainscope.convergence.prospect import prospect
from trainscope.convergence.scheduled import is_scheduled
from trainscope.convergence.stage import first_stage
from trainscope.convergence.track import Track
from trainscope.errors import RecordError

Q, P, ALPHA = 0.7, 0.8, 0.5
TOP, FALL, NOISE = 3.0, 0.9, 0.25


def written(rates: list[float]) -> str:
    """Return one stage an epoch."""
    return ",".join(f"{i}:{lr!r}" for i, lr in enumerate(rates))


def cosine(count: int, peak: float = 0.1) -> list[float]:
    """Return half a cosine."""
    return [peak * (1 + math.cos(math.pi * i / count)) / 2 for i in range(count)]


def run(rates: list[float], upto: int | None = None, *, jitter: float = 0.0, seed: int = 0):
    """Return the losses of the law under some LRs, and the curve of the first of them."""
    lr = np.array(rates) / 0.1
    tau = np.cumsum(lr**Q) / 100
    loss = TOP + FALL * tau**-ALPHA + NOISE * lr**P
    loss = loss + jitter * np.random.default_rng(seed).normal(size=len(loss))
    count = upto or len(rates)
    epochs = np.arange(1.0, len(rates) + 1)
    curve = LearningCurve(
        epochs[:count], lr=rates[:count], metric=loss[:count], better="lower", unit="nats"
    )
    return loss, curve


def test_the_clocks_are_sums_and_delayed_noise() -> None:
    track = Track(np.array([2.0, 5.0]), np.array([0.1, 0.01]))
    tau, noise = clocks(
        track, np.array([1.0, 2, 3, 5]), 0.1, np.array([0.5]), np.array([1.0]), np.array([1.0])
    )
    slow = 0.1**0.5
    assert tau[0] == pytest.approx([1, 2, 2 + slow, 2 + 3 * slow])
    left = [1.0, 1.0, *(0.1 + 0.9 * math.exp(-slow * k) for k in (1, 3))]
    assert noise[0] == pytest.approx(left)


@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_the_end_of_a_cosine_is_foreseen_from_its_first_half_and_a_run_that_decayed(jitter) -> None:
    plan = cosine(100)
    truth, half = run(plan, 50, jitter=jitter)
    _, decayed = run([0.1] * 60 + [0.01] * 20, jitter=jitter, seed=1)
    found = estimate_extra_epochs(
        half, truth[-1] + 0.01, decayed, schedule=written(plan), total_epochs=100
    )
    assert found.final.median == pytest.approx(truth[-1], abs=0.03)
    assert found.final.low <= truth[-1] <= found.final.high
    assert found.status is EstimateStatus.OK
    assert found.lengthens == "the whole schedule"


def test_a_decayed_run_narrows_where_another_schedule_ends() -> None:
    _, constant = run([0.1] * 60)
    _, decayed = run([0.1] * 40 + [0.01] * 10)
    plan = {"schedule": "0:0.1,80:0.01", "total_epochs": 100}
    truth = run([0.1] * 80 + [0.01] * 20)[0][-1]
    alone = estimate_extra_epochs(constant, 3.5, **plan).final
    both = estimate_extra_epochs(constant, 3.5, decayed, **plan).final
    assert both.high - both.low < 0.3 * (alone.high - alone.low)
    assert alone.low <= truth <= alone.high
    assert both.median == pytest.approx(truth, abs=0.04)


def test_a_cosine_and_a_constant_run_of_the_same_first_epochs_end_apart() -> None:
    _, decayed = run([0.1] * 60 + [0.01] * 20)
    falling = [0.1] * 50 + cosine(50)
    ends = []
    for rates in ([0.1] * 100, falling, [0.1] * 80 + [0.001] * 20):
        truth, start = run(rates, 8)
        plan = {"schedule": written(rates), "total_epochs": 100}
        found = estimate_extra_epochs(start, 3.5, decayed, **plan).final
        assert found.median == pytest.approx(truth[-1], abs=0.04)
        ends.append(found.median)
    assert ends[0] > max(ends[1:]) + 0.05


def test_a_plan_that_ran_to_its_end_ended_where_it_did() -> None:
    plan = cosine(40)
    loss, curve = run(plan)
    found = estimate_extra_epochs(curve, 3.0, schedule=written(plan), total_epochs=40)
    assert found.final.median == pytest.approx(loss[-3:].mean())
    assert found.extra_epochs.low > 0
    assert found.curve.epochs == ()
    reached = estimate_extra_epochs(curve, 5.0, schedule=written(plan), total_epochs=40)
    assert reached.status is EstimateStatus.REACHED
    assert reached.extra_epochs.high == 0


def test_the_epochs_by_which_a_cosine_is_stretched_reach_the_target() -> None:
    _, curve = run(cosine(60))
    longer = run(cosine(90))[0][-1]
    found = estimate_extra_epochs(curve, longer, schedule=written(cosine(60)), total_epochs=60)
    assert found.extra_epochs.low <= 30 <= found.extra_epochs.high
    assert found.extra_epochs.median == pytest.approx(30, rel=0.5)


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1.0, 7.0), (0.01, -3.0)])
def test_units_zero_and_direction_do_not_matter(scale: float, shift: float) -> None:
    plan = cosine(40)
    loss, _ = run(plan, jitter=0.01)
    epochs = np.arange(1.0, 21)
    more = {"schedule": written(plan), "total_epochs": 40}
    plain = LearningCurve(epochs, lr=plan[:20], metric=loss[:20], better="lower", unit="x")
    other = LearningCurve(
        epochs, lr=plan[:20], metric=-(scale * loss[:20] + shift), better="higher", unit="x"
    )
    a = estimate_extra_epochs(plain, 4.0, **more)
    b = estimate_extra_epochs(other, -(scale * 4.0 + shift), **more)
    assert -(b.final.median - -shift) / scale == pytest.approx(a.final.median, rel=1e-6)
    assert b.extra_epochs.median == pytest.approx(a.extra_epochs.median, rel=1e-6, abs=1e-6)
    assert b.reachable == a.reachable


def test_the_axis_does_not_matter() -> None:
    plan = cosine(40)
    loss, curve = run(plan, 20)
    steps = np.arange(1.0, 21) * 250
    told = LearningCurve(steps, lr=plan[:20], metric=loss[:20], better="lower", per="step")
    schedule = ",".join(f"{250 * i}:{lr!r}" for i, lr in enumerate(plan))
    a = estimate_extra_epochs(curve, 4.0, schedule=written(plan), total_epochs=40)
    b = estimate_extra_epochs(told, 4.0, schedule=schedule, total_epochs=10_000)
    assert b.final.median == pytest.approx(a.final.median, rel=1e-9)
    assert b.first_passage.median == pytest.approx(250 * a.first_passage.median, rel=1e-9)


def test_a_higher_target_is_never_reached_sooner() -> None:
    plan = cosine(40)
    _, curve = run(plan, 20, jitter=0.02)
    more = {"schedule": written(plan), "total_epochs": 40}
    found = [estimate_extra_epochs(curve, target, **more) for target in np.linspace(5, 2, 13)]
    for ends in ([f.extra_epochs.median for f in found], [f.first_passage.high for f in found]):
        assert all(a <= b + 1e-9 for a, b in pairwise(ends))
    chances = [f.reachable for f in found]
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize("unit", ["nats", "%"])
def test_the_epochs_to_add_before_decays_are_found(unit: str) -> None:
    _, decayed = run([0.1] * 80 + [0.01] * 20)
    small, goal = run([0.1] * 60)[1], run([0.1] * 100 + [0.01] * 20)[0][-1]
    told = [small, decayed]
    if unit == "%":  # an error of 10 points for each nat
        told = [LearningCurve(c.epochs, 100 - 10 * c.accuracy, c.lr, momentum=None) for c in told]
        goal = 100 - 10 * goal
    found = estimate_extra_epochs(
        *told[:1], goal, told[1], schedule="0:0.1,60:0.01", total_epochs=80
    )
    assert found.extra_epochs.low <= 40 <= found.extra_epochs.high
    assert found.extra_epochs.median == pytest.approx(40, rel=0.5)
    assert found.lengthens == "the first LR stage"
    assert found.reachable > 0.8


def test_four_records_are_the_least() -> None:
    assert fit_law([LearningCurve([1, 2, 3], [1.0, 2, 3], 0.1)]) is None
    assert fit_law([LearningCurve([1, 2, 3, 4], [1.0, 2, 3, 4], 0.1)]) is not None


def test_an_lr_on_its_way_down_is_no_whole_schedule() -> None:
    _, half = run(cosine(40), 20)
    assert own_schedule(half) is None
    _, whole = run(cosine(40))
    assert own_schedule(whole)[1] == 40


def test_a_plan_knows_if_it_has_a_first_stage() -> None:
    staged = read_plan("0:0.1,30:0.01", 60)
    assert staged.staged
    assert staged.longer(10).edges.tolist() == [40, 70]
    stretched = read_plan(written(cosine(40)), 40)
    assert not stretched.staged
    assert stretched.longer(20).edges[-1] == 60
    warm = read_plan("0:0.01,2:0.1,30:0.01", 60)
    assert warm.longer(10).edges.tolist() == [2, 40, 70]


def test_a_reference_without_a_first_stage_is_not_matched() -> None:
    _, small = run([0.05] * 30)
    _, large = run(cosine(60))
    found = estimate_extra_epochs(small, 4.3, large)
    assert "own trend" in found.explanation
    with pytest.raises(RecordError, match="the target must be"):
        estimate_extra_epochs(small, math.nan, large)


def test_a_reference_that_reached_the_target_in_its_decays_is_said_to_have() -> None:
    loss, decayed = run([0.1] * 40 + [0.01] * 20)
    _, small = run([0.05] * 30)
    found = estimate_extra_epochs(small, float(loss[-1]) + 0.01, decayed)
    assert found.status is EstimateStatus.REFERENCE_DECAYED
    assert found.explanation.startswith("The reference reached the target in its decays")


def test_a_warm_up_from_an_lr_of_zero_tells_nothing_false() -> None:
    """A power law of next to no steps is anything: such a record would outweigh all others."""
    plan = cosine(60)
    truth, whole = run(plan, 30)
    warmed = LearningCurve(
        [0.5, *whole.epochs],
        lr=[0.0, *whole.lr],
        metric=[12.0, *whole.accuracy],
        better="lower",
        unit="nats",
    )
    options = {"schedule": written(plan), "total_epochs": 60}
    plain = estimate_extra_epochs(whole, 4.5, **options).final
    found = estimate_extra_epochs(warmed, 4.5, **options).final
    assert found.median == pytest.approx(plain.median, abs=0.05)
    assert found.low <= truth[-1] <= found.high


def test_a_constant_run_under_a_plan_that_falls_all_along_has_the_whole_stretched() -> None:
    small = LearningCurve(range(1, 13), [100 - 10 * x for x in run([0.1] * 12)[1].accuracy], 0.1)
    goal = 100 - 10 * run(cosine(80))[0][-1]
    plan = {"schedule": written([0.1] * 2 + cosine(38)), "total_epochs": 40}
    found = estimate_extra_epochs(small, goal, **plan)
    assert found.lengthens == "the whole schedule"
    assert found.extra_epochs.low < 40 < found.extra_epochs.high
    assert "first LR stage" not in found.explanation


def test_a_prediction_under_a_plan_goes_on_from_the_last_record() -> None:
    plan = cosine(40)
    _, half = run(plan, 20, jitter=0.05)
    band = estimate_extra_epochs(half, 4.0, schedule=written(plan), total_epochs=40).curve
    assert (band.epochs[0], band.epochs[-1]) == (20, 40)
    assert band.low[0] == band.median[0] == band.high[0] == half.accuracy[-1]


@pytest.mark.parametrize("of", ["accuracy", "loss"])
def test_a_plan_without_decays_gets_there_at_the_first_passage(of: str) -> None:
    """What the sentence says and what the figure shows are one number."""
    at = np.arange(1, 31)
    shown = {1e-2: 1 - 1 / (1 + 0.5 * at), 1e-3: 1 - 1 / (1 + 0.05 * at)}
    curves = []
    for lr, share in shown.items():
        if of == "loss":
            curves.append(LearningCurve(at, metric=5 - 4 * share, better="lower", lr=lr))
        else:
            curves.append(LearningCurve(at, 20 + 70 * share, lr))
    large, small = curves
    target = float(large.accuracy[11])
    found = estimate_extra_epochs(small, target, large, schedule="0:1e-3", total_epochs=30)
    for name in ("median", "low", "high"):
        extra, passage = getattr(found.extra_epochs, name), getattr(found.first_passage, name)
        assert extra == pytest.approx(max(0.0, passage - 30), rel=0.05, abs=0.5)


@pytest.mark.parametrize("warmup", [1, 5, 12])
def test_a_warm_up_before_a_cosine_is_no_first_stage(warmup) -> None:
    rates = [0.1 * (i + 1) / warmup for i in range(warmup)] + cosine(40 - warmup)
    truth, half = run(rates, 30)
    stage = first_stage(half)
    assert stage is not None
    assert is_scheduled(half, stage)
    found = estimate_extra_epochs(
        half, float(truth[-1]) - 0.02, schedule=written(rates), total_epochs=40
    )
    assert found.final is not None
    assert found.final.low <= truth[-1] <= found.final.high
    assert found.lengthens == "the whole schedule"


def test_six_records_at_the_largest_lr_are_a_first_stage() -> None:
    for held, scheduled in ((5, True), (6, False)):
        _, curve = run([0.05, *[0.1] * held, *[0.01] * 10])
        stage = first_stage(curve)
        assert stage is not None
        assert is_scheduled(curve, stage) is scheduled


def test_a_warm_up_stays_where_the_rest_of_a_cosine_is_stretched() -> None:
    rates = [0.05, 0.1, *cosine(38)]
    plan = read_plan(written(rates), 40)
    longer = plan.longer(38)
    assert longer.edges == pytest.approx(1 + (plan.track.edges - 1) * (1 + 38 / 39))
    assert longer.edges[0] == 1
    assert longer.rates == pytest.approx(plan.track.rates)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("cycles", "The LR rises again after it fell"),
        ("restarts", "The LR rises again after it fell"),
        ("cosine", "The LR falls from the first epochs on"),
        ("warm-up", "The LR falls from the first epochs on"),
    ],
)
def test_the_sentence_is_true_of_the_rates(shape, said):
    epochs = np.arange(1, 31)
    cosine = 0.05 * (1 + np.cos(np.pi * (epochs - 1) / 30))
    rates = {
        "cycles": 1e-3 + 9e-3 * np.abs(((epochs - 1) % 10) / 5 - 1),
        "restarts": 0.05 * (1 + np.cos(np.pi * ((epochs - 1) % 10) / 10)),
        "cosine": cosine,
        "warm-up": np.where(epochs < 5, 0.1 * epochs / 5, cosine),
    }[shape]
    curve = LearningCurve(epochs, 80 - 50 * np.exp(-epochs / 12), rates)
    assert said in estimate_extra_epochs(curve, 85).explanation


def test_a_target_under_a_plan_is_called_unreachable_below_a_third() -> None:
    """As without a plan: less than a half is not enough to call it so."""
    plan = cosine(100)
    truth, half = run(plan, 50, jitter=0.01)
    seen = []
    for below in np.linspace(0.0, 3.0, 31):
        found = estimate_extra_epochs(
            half, truth[-1] - below, schedule=written(plan), total_epochs=100
        )
        least = found.reachable < 1 / 3
        assert (found.status is EstimateStatus.UNREACHABLE) == least
        seen.append(found.reachable)
    assert any(1 / 3 <= each < 0.5 for each in seen)
    assert min(seen) < 1 / 3


@pytest.mark.parametrize("unit", ["nats", "%"])
def test_what_no_run_has_shown_is_a_wide_guess_and_is_called_one(unit: str) -> None:
    whole = run([0.1] * 60 + [0.01] * 20)[0]
    small, decayed = run([0.1] * 60)[1], run([0.1] * 80 + [0.01] * 20)[1]
    goal = run([0.1] * 80 + [0.01] * 20)[0][-1]
    told = [small, decayed]
    if unit == "%":  # an error of 10 points for each nat
        told = [LearningCurve(c.epochs, 100 - 10 * c.accuracy, c.lr) for c in told]
        whole, goal = 100 - 10 * whole, 100 - 10 * goal
    plan = {"schedule": "0:0.1,60:0.01", "total_epochs": 80}
    alone = estimate_extra_epochs(told[0], float(goal), **plan)
    shown = estimate_extra_epochs(told[0], float(goal), told[1], **plan)
    assert alone.final is not None
    assert alone.final.low <= whole[-1] <= alone.final.high
    assert alone.extra_epochs.low <= 20 <= alone.extra_epochs.high
    assert "No run in evidence has decayed" in alone.explanation
    assert "No run in evidence has decayed" not in shown.explanation
    assert shown.final is not None
    assert shown.final.high - shown.final.low < (alone.final.high - alone.final.low) / 3


def test_what_decays_bring_is_less_sure_at_another_peak() -> None:
    small, plan = run([0.1] * 60)[1], read_plan("0:0.1,60:0.01", 80)
    whole = -run([0.1] * 60 + [0.01] * 20)[0][-1]
    for peak in (0.1, 0.2, 0.4):
        widths = []
        for prior in (PRIOR, replace(PRIOR, across=0.0)):
            law = fit_law([small, run([peak] * 60 + [peak / 10] * 20)[1]], prior)
            assert law is not None
            low, high = np.quantile(prospect(law, plan, None, 60.0).final(), (0.1, 0.9))
            assert low <= whole <= high
            widths.append(high - low)
        assert (widths[0] > 1.2 * widths[1]) == (peak > 0.1)
        assert widths[0] >= widths[1]


def test_a_loss_that_rises_again_is_not_foreseen_below_where_it_is() -> None:
    epochs = np.arange(1.0, 61)
    losses = 2 / epochs + 0.004 * epochs  # best at epoch 22, then worse
    small = LearningCurve(epochs, lr=0.1, metric=losses, better="lower", unit="nats")
    found = estimate_extra_epochs(small, 0.1, schedule="0:0.1,60:0.01", total_epochs=70).final
    assert found is not None
    assert found.low <= losses[-1] <= found.high
