"""N:M sparsity: of every M consecutive weights along the inputs, N are kept."""

from __future__ import annotations

import torch
from torch import Tensor


def fits(weight: Tensor, m: int) -> bool:
    """Say whether the inputs of a weight [..., inputs] split into groups of M."""
    return weight.shape[-1] % m == 0


def keep_n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """Return a mask of the weights to keep, True for the N best of every M; of equals the first.

    The M are consecutive input channels at one output and one kernel position, as the sparse
    tensor cores want them (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).

    Args:
        scores: [outputs, inputs, ...kernel]; inputs a multiple of M.
        n: How many are kept.
        m: Of how many.
    """
    last = scores.movedim(1, -1)
    order = last.reshape(-1, m).argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :n], True)
    return kept.view(last.shape).movedim(-1, 1).contiguous()
