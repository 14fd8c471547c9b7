"""Out of reach, or only far: what the training loss tells."""

from __future__ import annotations

import re

import numpy as np
import pytest

from trainscope.convergence import EstimateStatus, LearningCurve, estimate_extra_epochs
from trainscope.convergence.ceiling import ceiling, has_room, loss_left
from trainscope.convergence.stage import first_stage

UNTRAINED = 2.3


def fitted(count: int, lr: float, top: float, spent: float) -> LearningCurve:
    """Return a run whose accuracy goes to `top` as its loss goes from 2.3 nats to nothing.

    Args:
        count: Epochs.
        lr: Learning rate; the pace goes with it.
        top: Percent.
        spent: Epochs times LR in which the loss falls by a factor of e.
    """
    epochs = np.arange(count + 1.0)
    loss = UNTRAINED * np.exp(-epochs * lr / spent) + 1e-6
    wave = 0.15 * np.sin(7.0 * epochs)  # noise that no smoothing removes wholly
    return LearningCurve(epochs, top - (top - 10) * loss / UNTRAINED + wave, lr, loss)


@pytest.mark.parametrize("behind", [1.0, 2.0])
def test_a_run_that_fits_its_data_at_a_lower_accuracy_does_not_reach_the_larger_one(behind):
    large = fitted(100, 1e-2, 97.0, spent=0.05)
    small = fitted(60, 1e-3, 97.0 - behind, spent=0.01)
    estimate = estimate_extra_epochs(small, 97.0, large)
    assert estimate.status is EstimateStatus.UNREACHABLE
    assert estimate.reachable < 0.5
    assert estimate.first_passage.median > 60
    assert estimate.doubt in estimate.explanation
    told = re.search(r"the reference's accuracy is ([\d.]+) points above", estimate.doubt)
    assert float(told[1]) == pytest.approx(behind, abs=0.3)


def test_with_loss_left_the_same_gap_says_nothing():
    large = fitted(100, 1e-2, 97.0, spent=0.05)
    small = fitted(60, 1e-3, 90.0, spent=0.06)
    assert loss_left(first_stage(small)) > 0.2
    assert ceiling(first_stage(small), first_stage(large)).ahead < 0
    estimate = estimate_extra_epochs(small, 97.0, large)
    assert estimate.reachable > 0.9
    assert estimate.doubt == ""


def test_a_run_that_is_ahead_at_equal_loss_is_in_reach():
    large = fitted(100, 1e-2, 97.0, spent=0.05)
    small = fitted(60, 1e-3, 98.5, spent=0.01)
    top = ceiling(first_stage(small), first_stage(large))
    assert top.left < 0.01
    assert top.ahead > 1
    assert np.all(top.in_reach(np.array([90.0, 97.0])) == 1)


def test_a_higher_level_is_never_more_in_reach():
    top = ceiling(
        first_stage(fitted(60, 1e-3, 96.5, spent=0.01)),
        first_stage(fitted(100, 1e-2, 97.0, spent=0.05)),
    )
    assert np.all(np.diff(top.in_reach(np.linspace(90, 100, 50))) <= 0)


def test_without_losses_there_is_no_ceiling():
    large, small = fitted(100, 1e-2, 97.0, spent=0.05), fitted(60, 1e-3, 96.0, spent=0.01)
    bare = LearningCurve(small.epochs, small.accuracy, 1e-3)
    assert ceiling(first_stage(bare), first_stage(large)) is None
    assert ceiling(first_stage(small), first_stage(bare)) is None
    assert loss_left(first_stage(bare)) is None
    assert has_room(first_stage(bare)) == 0


def test_a_slow_start_among_many_classes_is_not_called_unreachable():
    """Ten epochs of 100 classes; the run reached 68.9 % at epoch 81 (calibration run `pairs`)."""
    accuracy = [0.7, 0.9, 1.4, 2.0, 2.5, 3.0, 3.6, 4.8, 5.7, 7.1, 8.4]
    loss = np.interp(np.arange(11), [0, 3, 6, 9, 10], [4.745, 4.54, 4.427, 4.265, 4.2])
    estimate = estimate_extra_epochs(LearningCurve(range(11), accuracy, 6.3e-4, loss), 68.9)
    assert estimate.status is EstimateStatus.OK
    assert estimate.reachable > 0.5
    assert estimate.first_passage.low <= 81 <= estimate.first_passage.high


def test_a_falling_accuracy_has_no_room_whatever_the_loss():
    """Noisy labels: much loss is left, and the test accuracy falls."""
    epochs = np.arange(41.0)
    accuracy = 60 - 0.02 * (epochs - 15) ** 2
    small = LearningCurve(epochs, accuracy, 1e-3, 2.3 - 0.02 * epochs)
    assert loss_left(first_stage(small)) > 0.4
    assert has_room(first_stage(small)) == 0


def test_a_network_that_begins_with_little_loss_has_little_left():
    """A pruned network may begin with a tenth of a nat; half of that is no plenty."""
    epochs = np.arange(21.0)
    small = LearningCurve(epochs, 90 + epochs / 10, 1e-3, 0.1 - 0.0025 * epochs)
    assert loss_left(first_stage(small)) < 0.06
    assert has_room(first_stage(small)) == 0
