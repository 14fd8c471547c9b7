from __future__ import annotations

import numpy as np
import pytest

from trainscope.convergence import loss_at_ends


def test_an_exponential_fall_is_found_at_the_ends():
    steps = np.linspace(0, 6, 6001)
    loss = 2 * np.exp(-0.8 * steps)
    means = [loss[k * 1000 : (k + 1) * 1000].mean() for k in range(6)]
    found = loss_at_ends(means, [0.1] * 6)
    # The mean lies above the middle by the curvature: 2.7 % here, where half an epoch is 49 %.
    assert found == pytest.approx(2 * np.exp(-0.8 * np.arange(1, 7)), rel=0.03)


def test_an_lr_drop_is_not_smoothed_over():
    found = loss_at_ends([1.0, 0.5, 0.1, 0.09], [0.1, 0.1, 0.01, 0.01])
    assert found[0] == pytest.approx(np.sqrt(0.5))
    assert found[1] == pytest.approx(0.5 * np.sqrt(0.5))  # as far on as from the first
    assert found[2] == pytest.approx(np.sqrt(0.1 * 0.09))


@pytest.mark.parametrize("odd", [None, 0.0, float("inf")])
def test_what_is_no_loss_moves_nothing(odd):
    found = loss_at_ends([1.0, odd, 0.25, 0.125], [0.1] * 4)
    assert found[0] == 1.0
    assert found[1] == odd
    assert found[2] == pytest.approx(0.25 * np.sqrt(0.5))


def test_one_epoch_stays_as_it_is():
    assert loss_at_ends([0.7], [0.1]) == [0.7]
    assert loss_at_ends([], []) == []
