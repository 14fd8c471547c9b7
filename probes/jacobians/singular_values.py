"""All singular values of many tall matrices, never through the Gram matrix.

The Gram matrix squares the condition number. A QR factorisation in float64 does not: the singular
values of A are those of R, and R of a tall matrix comes from blocks of its rows, one after the
other (TSQR), so that the float64 copy stays small.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_BYTES = 2**20  # of float64; fits the processor caches


def squeezed(rows: Tensor, head: Tensor | None = None) -> Tensor:
    """Return matrices with as few columns as there can be, and the same singular values and rows.

    Args:
        rows: [N, R, D], any floating dtype.
        head: [C, R]; the matrices are `head @ rows`, or the rows themselves where it is None.

    Returns:
        [N, C, min(R, D)], float64: each matrix times some orthonormal columns, so that inner
        products of its rows are what they were, to about 1e-15 of the largest.
    """
    _, count, inputs = rows.shape
    if inputs <= count:
        small = rows.double()
    else:
        each = max(1, BLOCK_BYTES // (8 * count * min(inputs, 4 * count)))
        small = torch.cat([_triangle(part).mT for part in torch.split(rows, each)])
    return small if head is None else head.double() @ small


def singular_values(matrices: Tensor, count: int | None = None) -> Tensor:
    """Return the singular values of each matrix, largest first, float64.

    Args:
        matrices: [N, C, D], any floating dtype; squeezed ones are taken as they are.
        count: How many there are, by default min(C, D); those beyond what the matrices have are
            zero, since the matrices that they were squeezed from are of no higher rank.

    Returns:
        [N, count]. Relative to the largest they are exact to about 1e-15, given the matrices.
    """
    found: Tensor = torch.linalg.svdvals(squeezed(matrices))
    missing = 0 if count is None else count - found.shape[1]
    return torch.nn.functional.pad(found, (0, missing))


def _triangle(matrices: Tensor) -> Tensor:
    """Return R of the QR factorisation of each transposed matrix [n, C, D], as [n, C, C]."""
    count, classes, _ = matrices.shape
    rows = max(4 * classes, BLOCK_BYTES // (8 * classes * count))
    triangle: Tensor | None = None
    for block in torch.split(matrices, rows, dim=2):
        tall = block.transpose(1, 2).double()
        stacked = tall if triangle is None else torch.cat([triangle, tall], 1)
        triangle = torch.linalg.qr(stacked, mode="r").R if stacked.shape[1] > classes else stacked
    assert triangle is not None  # there is at least one column
    return triangle
