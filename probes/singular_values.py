"""All singular values of many tall matrices, never through the Gram matrix.

The Gram matrix squares the condition number. A QR factorisation in float64 does not: the singular
values of A are those of R, and R of a tall matrix comes from blocks of its rows, one after the
other (TSQR), so that the float64 copy stays small.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_BYTES = 2**20  # of float64; fits the processor caches


def singular_values(matrices: Tensor) -> Tensor:
    """Return the singular values of each matrix, largest first, float64.

    Args:
        matrices: [N, C, D], any floating dtype.

    Returns:
        [N, min(C, D)]. Relative to the largest they are exact to about 1e-15, given the matrices.
    """
    _, classes, inputs = matrices.shape
    if inputs <= classes:
        small: Tensor = torch.linalg.svdvals(matrices.double())
        return small
    each = max(1, _BLOCK_BYTES // (8 * classes * min(inputs, 4 * classes)))
    return torch.cat(
        [torch.linalg.svdvals(_triangle(part)) for part in torch.split(matrices, each)]
    )


def _triangle(matrices: Tensor) -> Tensor:
    """Return R of the QR factorisation of each transposed matrix [n, C, D], as [n, C, C]."""
    count, classes, _ = matrices.shape
    rows = max(4 * classes, _BLOCK_BYTES // (8 * classes * count))
    triangle: Tensor | None = None
    for block in torch.split(matrices, rows, dim=2):
        tall = block.transpose(1, 2).double()
        stacked = tall if triangle is None else torch.cat([triangle, tall], 1)
        triangle = torch.linalg.qr(stacked, mode="r").R if stacked.shape[1] > classes else stacked
    assert triangle is not None  # there is at least one column
    return triangle
