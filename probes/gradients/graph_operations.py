"""The operations that take weights, and how samples' gradients follow from what they were given.

Each is told by the name of its node in the graph and the place of the weight among its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]


class NoGraphRuleError(Exception):
    """A weight is used in a way that is not known here."""


def returned_shape(node: Any) -> Shape:
    """Return the shape of what a node's operation returned."""
    return tuple(node._input_metadata[0].shape)


def _by_sample(values: Tensor, grid: Shape, axis: int, count: int) -> Tensor:
    """Return values of a grid as [N, positions that stand with the axis, the other axes..]."""
    moved = values.reshape(grid).movedim(axis, 0)
    return moved.reshape(count, -1, *moved.shape[1:])


def _rows(values: Tensor, grid: Shape, axis: int, count: int) -> Tensor:
    """Return values of a grid as [N, positions, last axis]."""
    whole = (*grid[:-1], values.shape[-1])
    return _by_sample(values, whole, axis, count).reshape(count, -1, values.shape[-1])


def _spread_over(values: Tensor, grid: Shape, shape: Shape, axis: int, count: int) -> Tensor:
    """Return the samples' gradients, [N, *shape], of what was spread over a grid of values.

    That is the values' sum over all axes that were spread.
    """
    own = [1] * (len(grid) - len(shape)) + list(shape)
    del own[axis]
    found = _by_sample(values, grid, axis, count)
    found = found.squeeze(1) if found.shape[1] == 1 else found.sum(1)
    over = [1 + a for a, size in enumerate(own) if size == 1 != found.shape[1 + a]]
    return (found.sum(over) if over else found).reshape(count, *shape)


Form = Callable[[Tensor, int, int], Tensor]


def _added(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
        raise NoGraphRuleError
    return lambda d, axis, count: _spread_over(d, grid, shape, axis, count)


def _times(other: Tensor, grid: Shape, shape: Shape) -> Form:
    return lambda d, axis, count: _spread_over(d * other, grid, shape, axis, count)


def _second(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    return _times(node._saved_other, grid, shape)


def _first(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    return _times(node._saved_self, grid, shape)


def _normed(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    x, mean, inverse = node._saved_input, node._saved_result1, node._saved_result2

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        normed = (x - mean).mul_(inverse).mul_(d)
        return _spread_over(normed, grid, shape, axis, count)

    return form


def _group_normed(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    x, mean, inverse = node._saved_input, node._saved_result1, node._saved_result2

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        groups = x.reshape(*mean.shape, -1)
        normed = (groups - mean.unsqueeze(-1)).mul_(inverse.unsqueeze(-1)).view(grid).mul_(d)
        return _spread_over(normed, grid, shape, axis, count)

    return form


def _multiplied(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    if getattr(node, "_saved_alpha", 1) != 1:
        raise NoGraphRuleError
    x = node._saved_mat1 if hasattr(node, "_saved_mat1") else node._saved_self

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        rows, given = _rows(d, grid, axis, count), _rows(x, grid, axis, count)
        if turned:  # what is turned back lies in one piece
            return (rows.transpose(1, 2) @ given).transpose(1, 2)
        return given.transpose(1, 2) @ rows

    return form


def _convolved(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    x, weight = node._saved_input, node._saved_weight
    zeros = [0] * len(node._saved_padding)

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        if axis:
            raise NoGraphRuleError
        every = len(d)  # several of them may be of one sample; each is taken as a group
        found: Tensor = torch.ops.aten.convolution_backward(
            d.reshape(1, -1, *d.shape[2:]),
            x.reshape(1, -1, *x.shape[2:]),
            weight.detach().new_empty(every * shape[0], *shape[1:]),  # only its shape
            None,
            list(node._saved_stride),
            list(node._saved_padding),
            list(node._saved_dilation),
            node._saved_transposed,
            list(node._saved_output_padding) or zeros,
            node._saved_groups * every,
            [False, True, False],
        )[1]
        return found.view(count, every // count, *shape).sum(1)

    return form


def _table(node: Any, grid: Shape, shape: Shape, turned: bool) -> Form:
    ids = node._saved_indices
    if node._saved_sparse or node._saved_scale_grad_by_freq:
        raise NoGraphRuleError

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        rows = _rows(d, grid, axis, count)
        which = _rows(ids.unsqueeze(-1), grid, axis, count)
        rows = rows.masked_fill(which == padding_of(node, shape), 0)
        found = rows.new_zeros(count, *shape)
        return found.scatter_add_(1, which.expand_as(rows), rows)

    return form


def padding_of(node: Any, shape: Shape) -> int:
    """Return the entry of an embedding that has no gradient, -1 where all have one."""
    place = node._saved_padding_idx
    return place if 0 <= place < shape[0] else -1


FLAT = frozenset({"Addmm", "Mm"})
"""Matrix products, which know no more than two axes."""

SECOND = frozenset({("NativeGroupNorm", 1), ("NativeGroupNorm", 2), ("Convolution", 2)})
"""Weights that stand at the second axis, that of channels, and not at the last."""

SUMMED = frozenset({("Addmm", 2), ("Mm", 1), ("Embedding", 0)})
"""Weights of two axes, of which what is returned has the last alone."""

OPERATIONS: dict[tuple[str, int], Callable[[Any, Shape, Shape, bool], Form]] = {
    ("Add", 0): _added,
    ("Add", 1): _added,
    ("Expand", 0): _added,
    ("Addmm", 0): _added,
    ("Addmm", 2): _multiplied,
    ("Mm", 1): _multiplied,
    ("Mul", 0): _second,
    ("Mul", 1): _first,
    ("NativeLayerNorm", 1): _normed,
    ("NativeLayerNorm", 2): _added,
    ("Convolution", 1): _convolved,
    ("Convolution", 2): _added,
    ("NativeGroupNorm", 1): _group_normed,
    ("NativeGroupNorm", 2): _added,
    ("Embedding", 0): _table,
}
"""By the operation, and the place among its arguments at which the weight stands."""
