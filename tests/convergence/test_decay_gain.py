from __future__ import annotations

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, estimate_extra_epochs, extra_epochs
from trainscope.convergence.decay_gain import decay_gain
from trainscope.convergence.plan import read_plan
from trainscope.convergence.scale import shared_scale
from trainscope.convergence.scheduled import foresee
from trainscope.convergence.stage import first_stage

TIME = np.arange(1.0, 61)


def run(lr: float, gain: float | None, noise: float = 0.0) -> LearningCurve:
    rng = np.random.default_rng(0)
    values = np.full(60, 60.0) + noise * rng.normal(size=60)
    if gain is None:
        return LearningCurve(TIME, values, lr)
    return LearningCurve(TIME, values + gain * (TIME > 40), np.where(TIME <= 40, lr, lr / 10))


def gain(small: LearningCurve, large: LearningCurve | None = None):
    its = None if large is None else first_stage(large)
    return decay_gain(small, first_stage(small), large, its)


def test_a_runs_own_decays_come_first():
    found = gain(run(1e-3, 2.0), run(1e-2, 9.0))
    assert found.mean == pytest.approx(2.0)
    assert found.source == "its own decays"


def test_then_the_references_shrunk_with_the_lr():
    near, far = gain(run(5e-3, None), run(1e-2, 9.0)), gain(run(1e-4, None), run(1e-2, 9.0))
    assert 0 < far.mean < near.mean < 9.0
    assert near.source == "the reference's decays"


def test_then_the_noise():
    assert gain(run(1e-3, None)).mean == 0
    assert gain(run(1e-3, None, 0.2)).mean < gain(run(1e-3, None, 1.0)).mean


def test_draws_have_the_mean_and_are_never_negative():
    values, weights = gain(run(1e-3, 2.0)).draws()
    assert weights.sum() == pytest.approx(1)
    assert values @ weights == pytest.approx(2.0)
    assert (gain(run(1e-3, None, 1.0)).draws()[0] >= 0).all()


@pytest.mark.parametrize(
    ("schedule", "total", "first", "tail"),
    [
        ("0:1e-2,30:1e-3,45:1e-4,53:1e-5", 60, 30, 1.5 + 0.08 + 0.007),
        ("0:1e-3,5:1e-2,30:1e-3", 40, 30, 1.0),
        ("0:1e-2", 20, 20, 0.0),
    ],
)
def test_a_plans_first_stage_and_the_lr_time_of_its_decays(schedule, total, first, tail):
    plan = read_plan(schedule, total)
    assert (plan.first, plan.lr) == (first, 1e-2)
    assert plan.tail == pytest.approx(tail)


def decayed(first: int, tail: int, *, lr: float = 1e-3, cosine: bool = False, loss: bool = False):
    """Return a run at a constant LR and then at a tenth, or under a cosine; of loss or accuracy."""
    time = np.arange(1.0, first + tail + 1)
    rate = np.where(time <= first, lr, lr / 10)
    if cosine:
        rate = lr * np.maximum(0.5 * (1 + np.cos(np.pi * time / len(time))), 0.01)
    gained = np.log(np.cumsum(rate) / 1e-3) + 0.5 * (rate < lr)
    if loss:
        return LearningCurve(time, lr=rate, metric=4.5 - 0.25 * gained, better="lower")
    return LearningCurve(time, 30 + 9 * gained, rate)


@pytest.mark.parametrize(
    ("loss", "other", "alone"),
    [
        (True, None, True),  # a loss need not show the noise that decays release
        (True, {"first": 80, "tail": 20}, False),  # what they release was seen
        (True, {"first": 80, "tail": 20, "cosine": True, "lr": 4e-3}, True),
        (False, None, False),
        (False, {"first": 80, "tail": 20}, False),
        # The law knows what these decays released, and the noise of the accuracy does not.
        (False, {"first": 80, "tail": 20, "cosine": True, "lr": 4e-3}, True),
    ],
)
def test_the_law_stands_alone_where_it_knows_of_decays_and_their_gain_is_guessed(
    monkeypatch, loss, other, alone
):
    reference = None if other is None else decayed(**other, loss=loss)
    small = decayed(40, 0, loss=loss)
    target = 3.3 if loss else 73.0
    plan = {"schedule": "0:0.001,40:0.0001", "total_epochs": 50}
    asked = []
    half = extra_epochs._planned

    def spy(*args, by_law):
        asked.append(by_law)
        return half(*args, by_law=by_law)

    monkeypatch.setattr(extra_epochs, "_planned", spy)
    found = estimate_extra_epochs(small, target, reference, **plan).extra_epochs
    assert asked == [alone]
    if reference is not None:  # of the law alone it is the answer, else it is not
        scale = shared_scale([small, reference])
        foreseen = foresee(small.on(scale), reference.on(scale), read_plan(*plan.values()))
        told = foreseen.extra(scale.quality(target), (0.5,))[0]
        assert (found.median == pytest.approx(told)) == alone


@pytest.mark.parametrize(("slope", "most"), [(0.5, 1.3 * 0.5), (20.0, 0.25 * 20)])
def test_the_guess_is_as_unsure_as_the_curve_is_steep_within_what_is_lacking(slope, most):
    values = 80 + slope * np.log(TIME / 60)
    found = gain(LearningCurve(TIME, values, 1e-3))
    assert found.guessed
    assert found.stderr == pytest.approx(most, rel=0.05)
