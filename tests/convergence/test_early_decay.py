from __future__ import annotations

import numpy as np
import pytest
from curves import curve

from trainscope.convergence import LearningCurve, decayed_too_early

TIME = np.arange(1.0, 61)
LR = np.where(TIME <= 40, 1e-2, 1e-3)


def decayed(values: np.ndarray) -> LearningCurve:
    return LearningCurve(TIME, values + np.where(TIME > 40, 3.0, 0.0), LR)


def test_a_rising_curve_decayed_too_early_and_the_slope_is_right():
    rng = np.random.default_rng(0)
    found = [
        decayed_too_early(decayed(20 + 10 * np.log(TIME) + rng.normal(0, 0.5, 60)))
        for _ in range(200)
    ]
    slopes = np.array([f.slope for f in found])
    assert all(f.too_early for f in found)
    assert abs(slopes.mean() - 10 / 40) < 4 * slopes.std() / np.sqrt(200)
    assert np.mean([f.stderr for f in found]) == pytest.approx(slopes.std(), rel=0.25)
    assert "too early: at epoch 40" in found[0].explanation


def test_a_flat_curve_did_not_and_noise_seldom_says_otherwise():
    rng = np.random.default_rng(1)
    found = [decayed_too_early(decayed(60 + rng.normal(0, 1.0, 60))) for _ in range(200)]
    assert np.mean([f.too_early for f in found]) < 0.06


def test_a_run_without_decays_or_with_too_short_a_stage_says_nothing():
    assert decayed_too_early(curve(30)) is None
    assert decayed_too_early(LearningCurve([1, 2, 3], [10, 20, 30], [0.1, 0.1, 0.01])) is None
    assert decayed_too_early(LearningCurve([], [], [])) is None


def test_one_dip_does_not_make_a_decay_early_and_none_promises_more_than_all():
    """A digits run that stood at 98 % but for one epoch; its LR dropped at epoch 10."""
    accuracy = [96.1, 96.1, 98.1, 98.3, 94.7, 97.2, 97.5, 97.8, 97.8, 98.3, 98.3, 98.3]
    found = decayed_too_early(LearningCurve(range(1, 13), accuracy, [1e-2] * 10 + [1e-3] * 2))
    left = 100 - np.mean(accuracy[7:10])
    assert found.per_doubling <= left
    assert found.per_doubling < 2.0


def test_a_first_jump_is_no_rise_at_the_end_of_a_short_stage():
    """A pruned digits network was back at its level after two epochs; the LR dropped at four."""
    accuracy, lr = [10.28, 83.33, 96.94, 96.39, 98.06, 98.06], [1e-2] * 4 + [1e-3] * 2
    found = decayed_too_early(LearningCurve(range(1, 7), accuracy, lr))
    assert not found.too_early
    assert "did not drop too early" in found.explanation
    rising = [10.0, 50.0, 75.0, 90.0, 95.0, 95.0]
    found = decayed_too_early(LearningCurve(range(1, 7), rising, lr))
    assert found.too_early
    assert found.per_doubling <= 100 - 90
