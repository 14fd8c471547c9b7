from __future__ import annotations

import numpy as np
import pytest

from trainscope.convergence import LearningCurve
from trainscope.convergence.decay_gain import decay_gain
from trainscope.convergence.plan import read_plan
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
