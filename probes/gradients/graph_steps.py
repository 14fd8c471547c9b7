"""What is done to a weight alone before an operation takes it: how gradients go back past it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainscope.probes.gradients.graph_operations import (
    NoGraphRuleError,
    Shape,
    padding_of,
    returned_shape,
)

Back = Callable[[Tensor], Tensor]


def spread_sizes(node: Any, shape: Shape) -> list[int]:
    """Return the sizes of the axes along which a node copies what it is given."""
    whole = returned_shape(node)
    own = [1] * (len(whole) - len(shape)) + list(shape)
    return [size for a, size in zip(own, whole, strict=True) if a == 1 != size]


def turned_back(values: Tensor) -> Tensor:
    """Return samples' gradients of a matrix from those of its transpose."""
    return values.transpose(1, 2)


def viewed(_: Any, shape: Shape, __: int) -> Back:
    """Return the way back past another shape of the same numbers."""
    return lambda values: values.reshape(len(values), *shape)


def _kept(_: Any, shape: Shape, __: int) -> Back:
    return lambda values: values


def _exchanged(node: Any, shape: Shape, _: int) -> Back:
    axes = [_place(axis, len(shape)) for axis in (node._saved_dim0, node._saved_dim1)]
    if len(shape) == 2 and axes[0] != axes[1]:
        return turned_back
    return lambda values: values.transpose(1 + axes[0], 1 + axes[1])


def _permuted(node: Any, shape: Shape, _: int) -> Back:
    order = [_place(axis, len(shape)) for axis in node._saved_dims]
    if order == [1, 0]:
        return turned_back
    inverse = [0, *(1 + order.index(axis) for axis in range(len(order)))]
    return lambda values: values.permute(inverse)


def _sliced(node: Any, shape: Shape, _: int) -> Back:
    axis, size = _place(node._saved_dim, len(shape)), shape[_place(node._saved_dim, len(shape))]
    start, stop, step = (
        slice(_signed(node._saved_start), _signed(node._saved_end), node._saved_step)
    ).indices(size)

    def undo(values: Tensor) -> Tensor:
        found = values.new_zeros(len(values), *shape)
        found[(slice(None),) * (1 + axis) + (slice(start, stop, step),)] = values
        return found

    return undo


def _selected(node: Any, shape: Shape, _: int) -> Back:
    axis, index = _place(node._saved_dim, len(shape)), _signed(node._saved_index)

    def undo(values: Tensor) -> Tensor:
        found = values.new_zeros(len(values), *shape)
        found[(slice(None),) * (1 + axis) + (index,)] = values
        return found

    return undo


def expanded(_: Any, shape: Shape, __: int) -> Back:
    """Return the way back past copies along some axes."""

    def undo(values: Tensor) -> Tensor:
        missing = values.ndim - 1 - len(shape)
        found = values.sum(list(range(1, 1 + missing))) if missing else values
        over = [1 + a for a, size in enumerate(shape) if size == 1 != found.shape[1 + a]]
        return found.sum(over, keepdim=True) if over else found

    return undo


def looked_up(node: Any, shape: Shape, _: int) -> Back:
    """Return the way back past an embedding of what all samples have, such as their positions."""
    ids = node._saved_indices
    if node._saved_sparse or node._saved_scale_grad_by_freq:
        raise NoGraphRuleError

    def undo(values: Tensor) -> Tensor:
        rows = values.reshape(len(values), -1, shape[-1])
        which: Tensor = ids.reshape(-1)
        rows = rows * (which != padding_of(node, shape)).to(rows).unsqueeze(1)
        found: Tensor = rows.new_zeros(len(rows), *shape)
        return found.index_add_(1, which, rows)

    return undo


def _indexed(node: Any, shape: Shape, _: int) -> Back:
    first, *others = node._saved_indices
    if first is None or first.dtype != torch.int64 or any(other is not None for other in others):
        raise NoGraphRuleError
    which: Tensor = first.reshape(-1) % shape[0]

    def undo(values: Tensor) -> Tensor:
        rows = values.reshape(len(values), -1, *shape[1:])
        found: Tensor = rows.new_zeros(len(rows), *shape)
        return found.index_add_(1, which, rows)

    return undo


def _split(node: Any, shape: Shape, out: int) -> Back:
    axis = _place(node._saved_dim, len(shape))
    sizes = [each.shape[axis] for each in node._input_metadata]
    start = sum(sizes[:out])

    def undo(values: Tensor) -> Tensor:
        found: Tensor = values.new_zeros(len(values), *shape)
        found.narrow(1 + axis, start, sizes[out]).copy_(values)
        return found

    return undo


def _place(axis: int, axes: int) -> int:
    return _signed(axis) % axes


def _signed(number: int) -> int:
    """Return a number that the graph keeps without its sign."""
    return number - 2**64 if number >= 2**63 else number


STEPS: dict[str, Callable[[Any, Shape, int], Back]] = {
    "T": lambda node, shape, out: turned_back if len(shape) == 2 else _kept(node, shape, out),
    "Transpose": _exchanged,
    "Permute": _permuted,
    "View": viewed,
    "UnsafeView": viewed,
    "ReshapeAlias": viewed,
    "Unsqueeze": viewed,
    "Squeeze": viewed,
    "Slice": _sliced,
    "Select": _selected,
    "Clone": _kept,
    "Index": _indexed,
    "Split": _split,
    "SplitWithSizes": _split,
}
"""What is done to a weight alone, before an operation takes it: how gradients go back past it."""
