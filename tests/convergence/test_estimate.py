"""The estimate keeps its promises on any curve: named statuses, no nonsense, monotone, unitless."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from curves import TOP, curve, law, passage
from hypothesis import given, settings
from hypothesis import strategies as st

from trainscope.convergence import (
    Estimate,
    EstimateStatus,
    Interval,
    LearningCurve,
    estimate_extra_epochs,
)
from trainscope.convergence.estimate import SENTENCES, sentence
from trainscope.errors import RecordError, ScheduleError
from trainscope.records import Metric

PLAN = {"schedule": "0:1e-3,30:1e-4,45:1e-5", "total_epochs": 60}


@st.composite
def learning_curves(draw, least: int = 0):
    """Return any curve at all: noisy, falling, flat, with holes, with LR drops, with a loss."""
    count = draw(st.integers(least, 30))
    shape = draw(st.sampled_from(["any", "rising", "falling", "constant"]))
    values = draw(st.lists(st.floats(0, 100), min_size=count, max_size=count))
    if shape == "rising":
        values = sorted(values)
    elif shape == "falling":
        values = sorted(values, reverse=True)
    elif shape == "constant" and values:
        values = values[:1] * count
    if draw(st.booleans()):
        values = [v if draw(st.integers(0, 5)) else math.nan for v in values]
    drop = draw(st.integers(1, 60))
    lr = [0.01 if i < drop else 0.001 for i in range(count)]
    loss = draw(st.none() | st.lists(st.floats(0.001, 5), min_size=count, max_size=count))
    return LearningCurve(range(1, count + 1), values, lr, loss)


def check(estimate: Estimate) -> None:
    """Check what holds of every estimate."""
    said = sentence(estimate.status)
    said = (
        "The target is reached" if estimate.status is EstimateStatus.REACHED else said.split(":")[0]
    )
    other = "The first LR stage holds" if estimate.status is EstimateStatus.TOO_FEW else said
    other = "The LR " if estimate.status is EstimateStatus.OK else other
    assert estimate.explanation.startswith((said, other))
    for interval in (estimate.first_passage, estimate.extra_epochs):
        assert 0 <= interval.low <= interval.median <= interval.high
    assert 0 <= estimate.reachable <= 1
    if estimate.status is EstimateStatus.OK:
        assert estimate.reachable >= 1 / 3
        assert math.isfinite(estimate.extra_epochs.median)
    if estimate.status is EstimateStatus.UNREACHABLE:
        assert estimate.reachable < 1 / 3
        assert math.isfinite(estimate.extra_epochs.high)
    if estimate.final is not None:
        assert 0 <= estimate.final.low <= estimate.final.median <= estimate.final.high <= 100
    json.dumps(estimate.to_json(), allow_nan=False)
    band = estimate.curve
    for low, median, high in zip(band.low, band.median, band.high, strict=True):
        assert low <= median + 1e-6
        assert median <= high + 1e-6
        assert low >= 0
        assert high <= 100
    assert list(band.epochs) == sorted(band.epochs)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    learning_curves(),
    st.floats(-10, 120),
    st.none() | learning_curves(),
    st.booleans(),
    st.floats(0.05, 0.95),
)
def test_any_curve_has_a_named_status_and_ordered_numbers(small, target, reference, plan, level):
    check(estimate_extra_epochs(small, target, reference, level, **(PLAN if plan else {})))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    learning_curves(least=4),
    st.none() | learning_curves(least=2),
    st.floats(0, 100),
    st.floats(0, 100),
    st.booleans(),
)
def test_a_higher_target_never_comes_sooner(small, reference, one, other, plan):
    options = PLAN if plan else {}
    low, high = sorted((one, other))
    first = estimate_extra_epochs(small, low, reference, **options)
    second = estimate_extra_epochs(small, high, reference, **options)
    for name in ("median", "low", "high"):
        for kind in ("first_passage", "extra_epochs"):
            before, after = (
                getattr(getattr(first, kind), name),
                getattr(getattr(second, kind), name),
            )
            assert before <= after * (1 + 1e-9)
    assert first.reachable >= second.reachable - 1e-9


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    learning_curves(),
    st.none() | learning_curves(),
    st.floats(0, 100),
    st.sampled_from([0.001, 1 / 3, 391.0, 7.3e9]),
    st.booleans(),
)
def test_the_unit_of_epochs_does_not_matter(small, reference, target, unit, planned):
    """Not even by rounding, which would decide ties and curves that stand exactly still."""

    def told(unit: float) -> Estimate:
        def scaled(c):
            return c.told_over(c.epochs * unit, c.lr_epochs * unit, 1.0)

        plan = {
            "schedule": f"0:0.01,{30 * unit!r}:0.001,{45 * unit!r}:0.0001",
            "total_epochs": 60 * unit,
        }
        its = None if reference is None else scaled(reference)
        return estimate_extra_epochs(scaled(small), target, its, **(plan if planned else {}))

    def ends(of: Interval | None, unit: float) -> list[float]:
        return [] if of is None else [end / unit for end in (of.median, of.low, of.high)]

    plain, other = told(1.0), told(unit)
    assert plain.status == other.status
    assert plain.reachable == pytest.approx(other.reachable, abs=1e-6)
    close = {"rel": 1e-6, "abs": 1e-6}
    assert ends(plain.first_passage, 1) == pytest.approx(ends(other.first_passage, unit), **close)
    assert ends(plain.extra_epochs, 1) == pytest.approx(ends(other.extra_epochs, unit), **close)
    assert ends(plain.final, 1) == pytest.approx(ends(other.final, 1), **close)
    assert plain.curve.epochs == pytest.approx([e / unit for e in other.curve.epochs], rel=1e-6)


def test_sentences_tell_epochs_in_the_unit_of_the_log() -> None:
    epochs = np.arange(1.0, 21) * 500
    run = LearningCurve(epochs, 60 - 30 * np.exp(-epochs / 3000), 0.01, per="step")
    plan = {"schedule": "0:0.01,12000:0.001", "total_epochs": 20000}
    told = estimate_extra_epochs(run, 62.0, **plan).explanation
    assert "After 10000 steps at LR 0.01" in told
    assert "800.0 steps' worth of LR time" in told


def test_levels_that_tie_are_matched_whatever_the_unit() -> None:
    """The run stands at a level of its reference, where rounding decided whether it was reached."""

    def median(unit: float) -> float:
        small = LearningCurve(np.arange(1, 7) * unit, [0, 1, 1, 1, 1, 1], lr=0.01)
        reference = LearningCurve(np.array([1, 2]) * unit, [1, 0], lr=0.01)
        return estimate_extra_epochs(small, 10.0, reference).first_passage.median / unit

    assert median(1e-3) == pytest.approx(median(1.0), rel=1e-4)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(learning_curves(least=4), st.randoms(use_true_random=False), st.floats(10, 90))
def test_the_order_of_records_and_ties_does_not_matter(small, random, target):
    epochs = np.repeat(small.epochs, 2)
    values = np.stack([small.accuracy - 0.3, small.accuracy + 0.4], 1).ravel()
    order = list(range(len(epochs)))
    random.shuffle(order)
    one = LearningCurve(epochs, values, 0.01)
    two = LearningCurve(epochs[order], values[order], 0.01)
    assert estimate_extra_epochs(one, target) == estimate_extra_epochs(two, target)


def constant(value: float, count: int = 20) -> LearningCurve:
    return LearningCurve(range(1, count + 1), [value] * count, 0.01)


FALLING = LearningCurve(range(1, 31), 60 - 0.5 * np.arange(30), 0.01)
TIME = np.arange(1.0, 201)
LEVEL = LearningCurve(TIME, 60 - 30 * np.exp(-TIME / 15), 0.01, 0.02 * np.exp(-TIME / 40))
NAN = math.nan
SHORT_REFERENCE = LearningCurve(range(1, 31), law(np.arange(1.0, 31)), 0.1)


@pytest.mark.parametrize(
    ("small", "target", "reference", "status"),
    [
        (curve(40), 70.0, None, EstimateStatus.OK),
        (curve(40), 40.0, None, EstimateStatus.REACHED),
        (curve(40), 101.0, None, EstimateStatus.IMPOSSIBLE),
        (constant(50.0), 60.0, None, EstimateStatus.FLAT),
        (FALLING, 62.0, None, EstimateStatus.FALLING),
        (LEVEL, 68.0, None, EstimateStatus.UNREACHABLE),
        (LearningCurve([1], [50.0], 0.01), 60.0, None, EstimateStatus.TOO_FEW),
        (LearningCurve([1], [50.0], 0.01), 60.0, curve(90), EstimateStatus.TOO_FEW),
        (LearningCurve([1, 2, 3], [50.0, 55.0, NAN], 0.01), 60.0, None, EstimateStatus.DIVERGED),
        (LearningCurve([1, 2], [NAN, NAN], 0.01), 60.0, None, EstimateStatus.EMPTY),
        (LearningCurve([], [], []), 60.0, None, EstimateStatus.EMPTY),
        (curve(40, pace=8, lr=0.0125), 72.0, SHORT_REFERENCE, EstimateStatus.REFERENCE_SHORT),
    ],
)
def test_statuses(small, target, reference, status):
    estimate = estimate_extra_epochs(small, target, reference)
    check(estimate)
    assert estimate.status is status


def test_a_target_reached_needs_nothing_more():
    estimate = estimate_extra_epochs(curve(40), 50.0)
    assert estimate.extra_epochs.to_json() == {"median": 0.0, "low": 0.0, "high": 0.0}
    assert abs(estimate.first_passage.median - passage(50.0)) < 0.6
    assert estimate.reachable == 1


def test_above_the_ceiling_is_never():
    estimate = estimate_extra_epochs(curve(40), 100.5)
    assert estimate.first_passage.low == math.inf
    assert estimate.reachable == 0


def test_a_curve_that_has_levelled_off_is_called_unreachable():
    estimate = estimate_extra_epochs(LEVEL, 68.0)
    assert estimate.reachable < 0.5
    assert 40 < estimate.first_passage.median <= estimate.first_passage.high < math.inf
    assert "level off" in estimate.explanation
    told = re.search(
        r"not reached within (\d+) epochs with probability (0\.\d+)", estimate.explanation
    )
    assert int(told[1]) == 10 * len(LEVEL)
    assert 1 - float(told[2]) <= estimate.reachable + 0.01


@pytest.mark.parametrize("seed", range(5))
def test_a_rising_curve_is_not_called_unreachable(seed):
    estimate = estimate_extra_epochs(curve(25, pace=6, noise=0.5, seed=seed), 60.0)
    assert estimate.reachable > 0.5
    assert math.isfinite(estimate.first_passage.median)


@pytest.mark.parametrize("pace", [3.0, 8.0])
def test_with_a_reference_the_truth_is_found(pace):
    large = curve(200, lr=0.1, noise=0.3, seed=1)
    small = curve(40, pace=pace, lr=0.1 / 10, noise=0.2, seed=2)
    target = 64.0
    estimate = estimate_extra_epochs(small, target, large)
    truth = passage(target, pace=pace)
    assert estimate.first_passage.low <= truth <= estimate.first_passage.high
    assert abs(math.log2(estimate.first_passage.median / truth)) < 0.25
    assert math.isclose(estimate.lr_time_bound, 10 * passage(target), rel_tol=0.2)
    assert math.isclose(estimate.extra_epochs.median, estimate.first_passage.median - 40)


def test_a_wider_level_holds_the_narrower():
    small, large = curve(30, pace=8, lr=0.0125, noise=0.3), curve(200, lr=0.1, noise=0.3)
    found = [estimate_extra_epochs(small, 66.0, large, p).first_passage for p in (0.5, 0.8, 0.95)]
    for inner, outer in pairwise(found):
        assert outer.low <= inner.low
        assert inner.high <= outer.high
        assert inner.median == outer.median


def test_the_band_passes_the_target_at_the_first_passage():
    estimate = estimate_extra_epochs(curve(30, pace=8, lr=0.0125), 66.0, curve(200, lr=0.1))
    band = estimate.curve
    at = np.interp(estimate.first_passage.median, band.epochs, band.median)
    assert abs(at - 66.0) < 0.5


def test_the_gain_of_the_references_decays_is_used():
    time = np.arange(1.0, 61)
    lr = np.where(time <= 40, 1e-2, 1e-3)
    jump = np.where(time > 40, 8.0, 0.0)
    large = LearningCurve(time, law(time) + jump, lr)
    small = curve(30, pace=8, lr=1e-3)
    target = 70.0
    with_gain = estimate_extra_epochs(small, target, large, **PLAN)
    without = estimate_extra_epochs(small, target, curve(60, lr=1e-2), **PLAN)
    assert with_gain.extra_epochs.median < without.extra_epochs.median
    assert "the reference's decays" in with_gain.explanation


def test_a_run_that_ended_above_the_target_needs_nothing():
    lr = np.where(TIME <= 150, 1e-3, 1e-4)
    done = LearningCurve(TIME, law(TIME) + np.where(TIME > 150, 5.0, 0.0), lr)
    estimate = estimate_extra_epochs(done, TOP, **PLAN)
    assert estimate.extra_epochs.high == 0
    assert estimate.reachable == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": NAN}, RecordError, "target must be"),
        ({"target": 60, "level": 1.0}, RecordError, "level must lie"),
        ({"target": 60, "schedule": "0:1e-3"}, ScheduleError, "needs a total"),
        ({"target": 60, "schedule": "5:1e-3", "total_epochs": 9}, ScheduleError, "ascend from 0"),
        ({"target": 60, "schedule": "0:x", "total_epochs": 9}, ScheduleError, "not EPOCH:LR"),
        ({"target": 60, "schedule": "0:-1", "total_epochs": 9}, ScheduleError, "no positive LR"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, error, message):
    with pytest.raises(error, match=message):
        estimate_extra_epochs(curve(20), **options)


def test_every_status_has_a_sentence():
    assert set(SENTENCES) == set(EstimateStatus)
    assert all(text.endswith(".") for text in SENTENCES.values())


def end_only(lr: float, first: int, total: int, accuracy: float) -> LearningCurve:
    """A run of which only the accuracy after its decays is known, as in a published table."""
    rates = [lr] * first + [lr / 10] * (total - first)
    return LearningCurve(range(1, total + 1), [NAN] * (total - 1) + [accuracy], rates)


def test_from_the_ends_of_two_runs_equal_lr_time_is_an_upper_bound():
    small, large = end_only(1e-3, 30, 60, 70.53), end_only(1e-2, 30, 60, 77.81)
    estimate = estimate_extra_epochs(small, 77.81, large)
    check(estimate)
    assert estimate.lr_time_bound == pytest.approx(300)
    assert 0 < estimate.extra_epochs.low < estimate.extra_epochs.median < 270
    assert 180 < estimate.extra_epochs.high < 290
    assert "equal LR time alone" in estimate.explanation
    planned = estimate_extra_epochs(small, 77.81, large, schedule="0:1e-3,40:1e-4", total_epochs=60)
    assert planned.extra_epochs.high == pytest.approx(estimate.extra_epochs.high - 10)


def test_from_the_ends_a_target_that_was_reached_needs_nothing():
    small, large = end_only(1e-3, 30, 60, 70.0), end_only(1e-2, 30, 60, 77.8)
    estimate = estimate_extra_epochs(small, 69.0, large)
    assert (estimate.status, estimate.extra_epochs.high) == (EstimateStatus.REACHED, 0)


SLOW = [75.8, 83.9, 87.8, 89.7, 90.3, 90.8, 91.9, 92.8, 93.9, 93.3]
SLOW += [93.9, 94.2, 93.9, 95.0, 94.7, 94.4, 94.4, 95.0, 94.2, 94.2]
"""A digits network pruned by 95 % at LR 1e-4; it reached 97 % at epoch 103."""
STEEP = [96.1, 96.1, 98.1, 98.3, 94.7, 97.2, 97.5, 97.8, 97.8, 98.3, 97.8, 97.8]
"""The same at LR 1e-2."""
SLOW_LOSS = [1.10, 0.70, 0.57, 0.48, 0.43, 0.38, 0.35, 0.33, 0.30, 0.27]
SLOW_LOSS += [0.27, 0.25, 0.24, 0.22, 0.23, 0.22, 0.19, 0.20, 0.18, 0.18]
STEEP_LOSS = [0.31, 0.09, 0.061, 0.038, 0.034, 0.033, 0.024, 0.017, 0.012, 0.013, 0.012, 0.012]


@pytest.mark.parametrize("watched", [12, 16, 20])
def test_a_reference_that_is_there_in_its_first_epoch_does_not_make_it_now(watched):
    """All that the small run has reached lies before the first record of the large one."""
    small = LearningCurve(range(1, watched + 1), SLOW[:watched], 1e-4, SLOW_LOSS[:watched])
    large = LearningCurve(range(1, 13), STEEP, 1e-2, STEEP_LOSS)
    passage = estimate_extra_epochs(small, 97.0, large).first_passage
    assert passage.median > 1.2 * watched
    assert passage.low <= 103 <= passage.high


def test_a_plan_without_decays_gains_nothing_by_them():
    rng = np.random.default_rng(0)
    epochs = np.arange(1.0, 31)
    small = LearningCurve(epochs, 60 + 7 * np.log(epochs) + 3 * rng.normal(size=30), 1e-3)
    target = 88.0
    bare = estimate_extra_epochs(small, target)
    planned = estimate_extra_epochs(small, target, schedule="0:1e-3", total_epochs=30)
    assert planned.extra_epochs.median == pytest.approx(bare.extra_epochs.median, rel=0.2)
    assert planned.extra_epochs.median > 10
    assert "decays" not in planned.explanation


def test_a_target_reached_after_the_decays_is_said_to_be_reached():
    time = np.arange(1.0, 21)
    stage = law(time)
    lr = [0.1] * 20 + [0.01] * 4
    small = LearningCurve(range(1, 25), [*stage, *[stage[-1] + 5] * 4], lr)
    target = stage[-1] + 3
    for schedule, total in ((None, None), ("0:0.1,20:0.01", 24)):
        found = estimate_extra_epochs(small, target, schedule=schedule, total_epochs=total)
        assert found.status is EstimateStatus.REACHED
        assert found.extra_epochs.high == 0
        assert found.reachable == 1
        assert "after the decays" in found.explanation


def test_a_target_reached_later_than_the_plan_decays_is_said_so():
    found = estimate_extra_epochs(curve(60), law(40.0), schedule="0:0.1,5:0.01", total_epochs=8)
    assert found.status is EstimateStatus.REACHED
    assert found.extra_epochs.median > 10
    assert "later than the plan decays" in found.explanation


@pytest.mark.parametrize("slope", [-0.2, 0.0])
def test_a_curve_that_does_not_rise_is_never_called_rising(slope):
    epochs = np.arange(1.0, 41)
    wave = 0.3 * np.sin(7 * epochs)
    small = LearningCurve(epochs, 50 + slope * epochs + wave, 0.01)
    for reference in (None, curve(200)):
        found = estimate_extra_epochs(small, 60.0, reference)
        assert found.status in (
            EstimateStatus.FALLING,
            EstimateStatus.FLAT,
            EstimateStatus.UNREACHABLE,
        )
        assert "still rising" not in found.explanation
        assert "do not help" not in found.explanation


def test_unlikely_and_most_unlikely_are_told_apart():
    time = np.arange(1.0, 201)
    flat = LearningCurve(time, 70 - 30 * np.exp(-time / 15), 0.01, np.exp(-time / 15) + 1e-4)
    found = estimate_extra_epochs(flat, 85.0)
    assert found.status is EstimateStatus.UNREACHABLE
    assert found.reachable < 0.2
    assert "most likely not" in found.explanation


def test_a_long_log_costs_neither_memory_nor_minutes():
    """50,000 records against as many: all pairs of them would take 19 GiB."""
    time = np.arange(1.0, 50_001)
    large = LearningCurve(time, law(time / 300), 0.1, (100 - law(time / 300)) / 30)
    small = LearningCurve(time[:50_000], law(time[:50_000] / 3000), 0.01)
    found = estimate_extra_epochs(small, law(100.0), large)
    assert found.first_passage.low <= 300_000 <= found.first_passage.high


def test_a_run_whose_lr_always_falls_is_estimated_from_all_its_records():
    epochs = range(1, 31)
    for period in (10, 30):
        lr = [0.05 * (1 + math.cos(math.pi * ((e - 1) % period) / period)) for e in epochs]
        curve = LearningCurve(epochs, [80 - 45 * math.exp(-e / 9) for e in epochs], lr)
        found = estimate_extra_epochs(curve, 85)
        assert found.status in (EstimateStatus.OK, EstimateStatus.UNREACHABLE)
        assert "all 30 records and their LRs" in found.explanation
        assert found.first_passage.low > 30
        check(found)
        reached = estimate_extra_epochs(curve, 70)
        assert reached.status is EstimateStatus.REACHED
        assert reached.extra_epochs.median == 0


def test_an_lr_of_zero_at_the_ends_is_read():
    accuracy = [10.0, 30, 40, 46, 50, 53, 55, 57]
    warm = LearningCurve(range(1, 9), accuracy, [0.0] + [0.1] * 7)
    check(estimate_extra_epochs(warm, 60))
    falling = LearningCurve(range(1, 9), accuracy, [0.1] * 7 + [0.0])
    assert estimate_extra_epochs(falling, 56).status is EstimateStatus.REACHED
    with pytest.raises(RecordError, match="or 0 where a schedule begins or ends"):
        LearningCurve([1, 2], [1, 2], [0.0, 0.0])
    with pytest.raises(RecordError, match="or 0 where a schedule begins or ends"):
        LearningCurve([1, 2], [1, 2], [0.1, -0.1])


def test_epochs_that_are_counted_on_are_said():
    accuracy = [80 - 50 * math.exp(-e / 12) for e in range(1, 31)]
    late = estimate_extra_epochs(LearningCurve(range(121, 151), accuracy, 1e-3), 78)
    assert "The first epoch with a record is 121" in late.explanation
    for epochs in (range(1, 31), range(5, 155, 5), range(31)):
        curve = LearningCurve(epochs, [*accuracy, 79.0][: len(epochs)], 1e-3)
        assert "first epoch with a record" not in estimate_extra_epochs(curve, 78).explanation


@pytest.mark.parametrize("target", [40.0, 70.0, 74.9, 80.0, 100.5])
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("options", [{}, PLAN])
def test_an_error_is_estimated_as_the_accuracy_that_it_leaves(target, with_reference, options):
    small, large = curve(12, pace=4.0, noise=0.2), curve(30, lr=1.0, noise=0.2, seed=1)
    plain = estimate_extra_epochs(small, target, large if with_reference else None, **options)
    other = estimate_extra_epochs(
        error_of(small), 100 - target, error_of(large) if with_reference else None, **options
    )
    assert other.status == plain.status
    for name in ("first_passage", "extra_epochs"):
        for part in ("median", "low", "high"):
            expected = getattr(getattr(plain, name), part)
            assert getattr(getattr(other, name), part) == pytest.approx(expected)
    assert other.reachable == pytest.approx(plain.reachable)
    assert other.curve.median == pytest.approx([100 - value for value in plain.curve.median])
    assert other.curve.low == pytest.approx([100 - value for value in plain.curve.high])
    assert other.curve.high == pytest.approx([100 - value for value in plain.curve.low])
    assert "accuracy" not in other.explanation
    assert str(other.to_json()["metric"]["better"]) == "lower"


def test_the_words_of_an_error_have_its_direction():
    found = estimate_extra_epochs(error_of(curve(12, pace=4.0)), 30.0)
    assert found.explanation.startswith("The error is still falling.")
    assert "points above the target; the error moves by -" in found.explanation
    assert "<Estimate to error 30.00 %:" in repr(found)
    none = estimate_extra_epochs(error_of(curve(12)), -1.0)
    assert none.explanation == "No error is below 0 %."


def test_two_curves_are_told_by_one_metric_over_one_axis():
    with pytest.raises(
        RecordError, match=r"told by its accuracy \(%\) and the reference by its err"
    ):
        estimate_extra_epochs(curve(12), 60.0, error_of(curve(30)))
    steps = LearningCurve(range(1, 9), range(1, 9), 0.1, per="step")
    with pytest.raises(RecordError, match="told by the epoch and the reference by the step"):
        estimate_extra_epochs(curve(12), 60.0, steps)


def error_of(held):
    """Return a curve as told by its error."""
    error = Metric("error", "%", "lower")
    return LearningCurve(held.epochs, 100 - held.accuracy, held.lr[0], held.loss, metric=error)


@pytest.mark.parametrize("seed", range(6))
def test_the_predicted_curve_stays_below_what_is_not_likely_to_be_reached(seed):
    """A run that stands still below the end of its reference, which the drawn median had passed."""
    noise, at = np.random.default_rng(seed), np.arange(1, 43)
    small = LearningCurve(at, 96.4 - 40 * np.exp(-at / 2) + 0.2 * noise.standard_normal(42), 3e-3)
    rates = [1e-2] * 6 + [1e-3] * 3 + [1e-4] * 3
    tops = [*(97.6 - 30 * np.exp(-np.arange(1, 7) / 1.5)), *(97.5 + 0.3 * noise.random(6))]
    large = LearningCurve(np.arange(1, 13), tops, rates)
    plan = {"schedule": "0:3e-3,42:3e-4,45:3e-5", "total_epochs": 48}
    found = estimate_extra_epochs(small, 97.9, large, **plan)
    assert found.reachable < 0.5
    assert max(found.curve.median) < 97.9


def test_no_curve_passes_a_target_whose_chance_is_put_below_a_half(monkeypatch):
    """Where the passages say that it is reached and the law of schedules that it is not."""
    at = np.arange(1, 43)
    small = LearningCurve(at, 96.4 - 40 * np.exp(-at / 8), 3e-3)
    plan = {"schedule": "0:3e-3,42:3e-4,45:3e-5", "total_epochs": 48}
    plain = estimate_extra_epochs(small, 96.5, **plan)
    assert max(plain.curve.median) > 96.5

    def doubted(*_, **__):
        return Interval(9.0, 3.0, 90.0), 0.33

    monkeypatch.setattr("trainscope.convergence.extra_epochs._planned", doubted)
    found = estimate_extra_epochs(small, 96.5, **plan)
    assert found.reachable == 0.33
    assert not found.curve.median
    assert "by the law of schedules it is not" in found.withheld


@pytest.mark.parametrize("unit", [1.0, 1 / 3, 524288.0, 7.3e9])
def test_what_is_told_of_a_record_is_its_epoch(unit: float) -> None:
    epochs = np.append(np.arange(1, 10) * unit + 3, 1e4 * unit)
    run = LearningCurve(epochs, np.linspace(60, 50, 10), 1e-3)
    assert estimate_extra_epochs(run, 50.0).first_passage.median == epochs[0]
    rising = LearningCurve(epochs[:9], 60 + 3 * np.log(np.arange(1, 10)), 1e-3)
    assert estimate_extra_epochs(rising, 68.0).curve.epochs[0] == epochs[8]


def test_rows_that_nearly_tie_do_not_move_the_end_of_the_first_stage() -> None:
    epochs = np.arange(1.0, 31)
    values = 60 - 30 * np.exp(-epochs / 8) + np.where(epochs > 20, 3, 0)
    lr = np.where(epochs <= 20, 0.1, 0.01)
    plain = estimate_extra_epochs(LearningCurve(epochs, values, lr), 66.0)
    at = np.append(epochs, np.nextafter(np.nextafter(3.0, 4), 4))
    beside = LearningCurve(at, np.append(values, math.nan), np.append(lr, 0.1))
    found = estimate_extra_epochs(beside, 66.0)
    assert "After 20 epochs at LR 0.1" in found.explanation
    assert found.first_passage.median == pytest.approx(plain.first_passage.median, rel=1e-6)


def test_a_target_that_no_level_gets_to_is_never_and_not_unknown() -> None:
    steps = np.arange(1.0, 21) * 500
    losses = 3.2 + 0.1 / np.sqrt(np.arange(1.0, 21))
    run = LearningCurve(steps, lr=1e-3, metric=losses, better="lower", unit="nats", per="step")
    found = estimate_extra_epochs(run, 2.0)
    assert found.is_known
    assert "not within" in found.first_passage.in_words("step")
    assert "unknown" not in repr(found)
