"""Estimates of losses, perplexities and other metrics, over epochs, steps or tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainscope.convergence import Estimate, LearningCurve, estimate_extra_epochs
from trainscope.convergence.curve import AXES
from trainscope.convergence.estimate import over
from trainscope.convergence.scale import SEEN, shared_scale
from trainscope.errors import RecordError
from trainscope.records import Metric


def law(time: np.ndarray, pace: float = 1.0) -> np.ndarray:
    """Return a loss that falls by a power law to 2.5 nats, slower by a pace."""
    return 2.5 + 3.0 * (1 + time / pace) ** -0.4


def losses(
    count: int, lr: float = 0.1, pace: float = 1.0, unit: float = 1.0, **options
) -> LearningCurve:
    time = np.arange(count + 1.0)
    told = {"better": "lower", "unit": "nats", "name": "loss"} | options
    return LearningCurve(time * unit, lr=lr, metric=law(time, pace), **told)


def ends(found: Estimate) -> list[float]:
    one, other = found.first_passage, found.extra_epochs
    return [one.median, one.low, one.high, other.median, other.low, other.high, found.reachable]


@pytest.mark.parametrize("target", [3.3, 3.0, 2.8])
@pytest.mark.parametrize("with_reference", [False, True])
def test_the_passage_of_a_loss_that_goes_on_is_in_the_interval(
    target: float, with_reference: bool
) -> None:
    truth = 4.0 * ((3.0 / (target - 2.5)) ** 2.5 - 1)
    small = losses(max(8, int(0.4 * truth)), pace=4.0)
    large = losses(int(1.2 * truth / 4), lr=0.4)
    found = estimate_extra_epochs(small, target, large if with_reference else None)
    assert found.first_passage.low < truth < found.first_passage.high
    assert found.first_passage.median == pytest.approx(truth, rel=0.15 if with_reference else 0.5)
    assert found.reachable > 0.8
    assert "the loss moves by -" in found.explanation
    assert found.curve.low[-1] < found.curve.median[-1] < found.curve.high[-1]


@given(
    factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10), target=st.floats(2.6, 3.4),
    with_reference=st.booleans(),
)  # fmt: skip
def test_the_unit_the_zero_and_the_direction_of_a_metric_do_not_matter(
    factor: float, shift: float, target: float, with_reference: bool
) -> None:
    def told(curve: LearningCurve) -> LearningCurve:
        return LearningCurve(
            curve.epochs, lr=0.1 if curve is small else 0.4,
            metric=-(factor * curve.accuracy + shift), better="higher", name="likelihood",
        )  # fmt: skip

    small, large = losses(12, pace=4.0), losses(30, lr=0.4)
    plain = estimate_extra_epochs(small, target, large if with_reference else None)
    other = estimate_extra_epochs(
        told(small), -(factor * target + shift), told(large) if with_reference else None
    )
    assert ends(other) == pytest.approx(ends(plain), rel=1e-5)
    assert other.status == plain.status
    up = [-(factor * value + shift) for value in plain.curve.low]
    assert other.curve.high == pytest.approx(up, rel=1e-5, abs=1e-5 * factor)


@given(unit=st.floats(1e-3, 1e6), target=st.floats(2.6, 3.4), per=st.sampled_from(AXES))
def test_the_unit_of_the_axis_does_not_matter(unit: float, target: float, per: str) -> None:
    plain = estimate_extra_epochs(losses(12), target)
    other = estimate_extra_epochs(losses(12, unit=unit, per=per), target)
    scaled = [value * unit for value in ends(plain)[:6]]
    assert ends(other)[:6] == pytest.approx(scaled, rel=1e-6)
    assert other.reachable == pytest.approx(plain.reachable)
    assert other.status == plain.status


def test_a_perplexity_is_worked_on_in_its_logarithm() -> None:
    small, large = losses(12, pace=4.0), losses(30, lr=0.4)
    told = [
        LearningCurve(
            curve.epochs, lr=lr, metric=np.exp(curve.accuracy), better="lower", name="perplexity"
        )
        for curve, lr in ((small, 0.1), (large, 0.4))
    ]
    plain = estimate_extra_epochs(small, 3.0, large)
    other = estimate_extra_epochs(told[0], math.exp(3.0), told[1])
    assert ends(other) == pytest.approx(ends(plain), rel=1e-9)
    assert other.curve.median == pytest.approx(np.exp(plain.curve.median).tolist())
    assert "perplexity" in other.explanation
    with pytest.raises(RecordError, match="a perplexity is above 0, and the target is -1"):
        estimate_extra_epochs(told[0], -1.0)


def test_a_level_far_beyond_what_was_seen_is_far_in_time_and_in_doubt() -> None:
    """Nothing that was calibrated on lies more than ten times ahead."""
    small = losses(30)
    near, far = (estimate_extra_epochs(small, target) for target in (3.2, 1.0))
    assert near.reachable > 0.95
    assert far.reachable < near.reachable
    assert far.first_passage.low > 10 * 30
    assert far.first_passage.high == pytest.approx(100 * 30)  # the horizon
    # What is left of the training loss says nothing of how far a loss has to go.
    spendable = losses(30, loss=[2.0] * 31)
    assert estimate_extra_epochs(spendable, 1.0).reachable < 0.5


def test_the_words_count_what_the_axis_counts() -> None:
    found = estimate_extra_epochs(losses(12, per="step"), 3.0)
    assert "epoch" not in found.explanation
    assert "5-record mean" in found.explanation
    assert found.to_json()["per"] == "step"
    assert "extra steps (" in repr(found)


def test_the_scale_is_that_of_both_curves() -> None:
    scale = shared_scale([losses(5, pace=4.0), losses(9)])
    assert scale.quality(law(np.array(0.0))) == pytest.approx(0.0)
    assert scale.quality(law(np.array(9.0))) == pytest.approx(SEEN)
    assert scale.value(scale.quality(2.7)) == pytest.approx(2.7)
    assert scale.gap(0.0, SEEN, sign="+").startswith("-")
    assert scale.gap(0.0, SEEN) == "1.806 nats"
    still = LearningCurve([1, 2], lr=0.1, metric=[3.0, 3.0], better="lower")
    assert math.isfinite(shared_scale([still]).quality(3.0))


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        ({"metric": [1.0, 2.0]}, "better says which values"),
        ({"metric": [1.0, 2.0], "better": "up"}, "'higher' or 'lower', not 'up'"),
        ({"metric": [1.0, 2.0], "better": "lower", "accuracy": [1.0, 2.0]}, "of one metric"),
        ({}, "give the values of a metric"),
        ({"accuracy": [1.0, 2.0], "better": "lower"}, "give the values of a metric"),
        ({"accuracy": [1.0, 2.0], "per": "hour"}, "per is one of epoch, step, token, not 'hour'"),
        ({"accuracy": [1.0, 2.0], "lr": None}, "needs the LR of its records"),
    ],
)
def test_what_a_curve_is_of_is_said_once(given_as: dict, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        LearningCurve([1, 2], **{"lr": 0.1, **given_as})


def test_a_table_is_read_by_the_column_and_the_axis_that_are_asked_for(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "Step,Epoch,lr,Val_Loss,accuracy,loss\n100,1,0.1,3.5,10,3.6\n200,2,0.1,3.2,20,3.3\n"
    )
    loss = Metric("loss", "", "lower")
    curve = LearningCurve.from_csv(path, loss, column="val_loss", per="step")
    assert (curve.epochs.tolist(), curve.accuracy.tolist()) == ([100, 200], [3.5, 3.2])
    assert (curve.per, curve.metric, curve.loss.tolist()) == ("step", loss, [3.6, 3.3])
    assert LearningCurve.from_csv(path).per == "epoch"
    with pytest.raises(RecordError, match="has no column 'token'; its header must name token, lr"):
        LearningCurve.from_csv(path, loss, column="val_loss", per="token")
    of_loss = LearningCurve.from_csv(path, loss, column="loss")
    assert of_loss.loss is None
    path.write_text("iter,lr,ppl\n1,0.1,30\n2,0.1,20\n2,0.1,10\n")
    again = LearningCurve.from_csv(path, Metric("perplexity", "", "lower"), column="ppl")
    assert (again.per, again.repeated) == ("step", 2.0)


@pytest.mark.parametrize("per", ["step", "token"])
def test_sentences_over_another_axis_are_english(per: str) -> None:
    told = over(
        per, "0.2 points an epoch, after an epoch; --epochs of 5-epoch means. An epoch more."
    )
    assert told == (f"0.2 points a {per}, after a {per}; --epochs of 5-record means. A {per} more.")
    assert over("epoch", "by 0.2 an epoch") == "by 0.2 an epoch"
