"""Per-sample gradients of weights that no layer's rule covers, read from the graph of a pass.

Class tokens, positions, the weights inside an attention, norms of transformers, a weight that two
layers share: whatever code used a weight, the graph holds the operation that took it, and what that
operation was given. From these and the gradient at its output follows the gradient of each sample;
a weight that is taken several times has the sum of them.

An operation does not say which of its axes is that of samples. Where the sizes leave a choice, the
first two samples, whose gradients are known, decide it once for the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

_MOST = 8
"""Ways to tell samples apart that are tried for one weight."""

_Shape = tuple[int, ...]
_Back = Callable[[Tensor], Tensor]
_Parents = dict[tuple[Any, int], list[tuple[Any, int]]]
"""By a node and the place among what it returns: the nodes that take it, and as which argument."""


class NoGraphRuleError(Exception):
    """A weight is used in a way that is not known here."""


@dataclass(frozen=True)
class Operation:
    """One operation of a graph that took a weight, or a view of it.

    Attributes:
        edge: Where the gradient at its output is found.
        grid: The shape of the output; of a matrix product on flattened positions, the one before.
        shape: The weight's own axes, as they stand at the end of the grid's.
        form: From the gradient at the output to the samples' gradients of the weight as it was
            taken, [N, ...]; given too are the axis of samples and their number.
        back: From there to gradients shaped like the weight itself, last step first.
    """

    edge: GradientEdge
    grid: _Shape
    shape: _Shape
    form: Callable[[Tensor, int, int], Tensor]
    back: tuple[_Back, ...] = ()

    def axes(self, count: int) -> list[int]:
        """Return the axes that may be that of so many samples, the likely ones first."""
        missing = len(self.grid) - len(self.shape)
        own = [None] * missing + list(self.shape)
        free = [a for a, size in enumerate(self.grid) if own[a] in (None, 1) and size]
        alone = [a for a in free if self.grid[a] == count]
        several = [a for a in free if self.grid[a] != count and self.grid[a] % count == 0]
        return alone + several

    def gradients(self, d: Tensor, axis: int, count: int) -> Tensor:
        """Return the samples' gradients of the weight, [N, ...]."""
        if self.grid[axis] % count:
            raise NoGraphRuleError
        found = self.form(d, axis, count)
        for step in reversed(self.back):
            found = step(found)
        return found


@dataclass
class GraphRules:
    """The operations that take some weights, and which of their axes is that of samples.

    Attributes:
        weights: The weights.
        axes: For each weight, by its id, the axis of samples of each operation that takes it.
    """

    weights: Sequence[Tensor]
    axes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _turns: dict[int, int] = field(default_factory=dict)
    _each: dict[int, list[bool]] = field(default_factory=dict)

    def find(self, outputs: Sequence[Tensor], count: int) -> dict[int, list[Operation]]:
        """Return the operations of a graph that take each weight, by its id.

        The first graph of all is the one that the axes are chosen on.

        Raises:
            NoGraphRuleError: One of them is not known, or axes are not to be told.
        """
        wanted = {id(weight): weight for weight in self.weights}
        found: dict[int, list[Operation]] = {key: [] for key in wanted}
        parents, leaves = _consumers(outputs)
        told = {key: iter(self._each.get(key, ())) for key in self.axes}
        try:
            for node in leaves:
                key = id(node.variable)
                if key in wanted:
                    shape = tuple(wanted[key].shape)
                    asked = _Asked(parents, count, told.get(key), self._each.setdefault(key, []))
                    found[key] = list(_taken(asked, node, 0, shape, ()))
        except (AttributeError, RuntimeError) as error:  # not saved, let go of, or written to
            raise NoGraphRuleError from error
        for key, operations in found.items():
            if not operations:
                raise NoGraphRuleError
            if key not in self.axes:
                ways = product(*(operation.axes(count) for operation in operations))
                chosen = next(islice(ways, self._turns.get(key, 0), None), None)
                if chosen is None:
                    raise NoGraphRuleError
                self.axes[key] = chosen
            if len(self.axes[key]) != len(operations):
                raise NoGraphRuleError
        return found

    def gradients(
        self, key: int, operations: Sequence[Operation], d: Sequence[Tensor], count: int
    ) -> Tensor:
        """Return the samples' gradients of one weight, [N, ...].

        Args:
            key: Its id.
            operations: Those that take it.
            d: The gradient at the output of each.
            count: The number of samples.
        """
        rows = zip(operations, d, self.axes[key], strict=True)
        parts = [operation.gradients(each, axis, count) for operation, each, axis in rows]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def turn(self, key: int) -> None:
        """Take other axes for a weight the next time.

        Raises:
            NoGraphRuleError: There were enough of them.
        """
        self._turns[key] = self._turns.get(key, 0) + 1
        del self.axes[key]
        if self._turns[key] >= _MOST:
            raise NoGraphRuleError


@dataclass(frozen=True)
class _Asked:
    """What is known while one weight is followed through a graph.

    Attributes:
        parents: Which nodes take what each node returns.
        count: The number of samples.
        told: Whether each thing that might be made for each sample is, in order, where that is
            known from the first graph.
        tell: Where it is noted there.
    """

    parents: _Parents
    count: int
    told: Iterator[bool] | None
    tell: list[bool]

    def each(self, node: Any, sizes: Sequence[int]) -> bool:
        """Tell whether a node makes something for each sample, and not one thing for all."""
        if self.told is not None:
            found = next(self.told, None)
            if found is None:
                raise NoGraphRuleError
            return found
        self.tell.append(self.count in sizes)
        return self.tell[-1]


def _taken(
    asked: _Asked, node: Any, out: int, shape: _Shape, back: tuple[_Back, ...]
) -> Iterator[Operation]:
    """Yield the operations that take one thing that a node returns, which depends on one weight."""
    for parent, index in asked.parents.get((node, out), ()):
        name = type(parent).__name__.rstrip("0123456789").removesuffix("Backward")
        step = _STEPS.get(name)
        if name == "Embedding" and not asked.each(parent, parent._saved_indices.shape):
            step = _looked_up
        if name == "Expand" and not asked.each(parent, _spread(parent, shape)):
            step = _expanded
        if step is not None:
            for place, moved in enumerate(parent._input_metadata):
                undo = step(parent, shape, place)
                yield from _taken(asked, parent, place, tuple(moved.shape), (*back, undo))
            continue
        make = _OPERATIONS.get((name, index))
        if make is None:
            raise NoGraphRuleError
        grid = _grid(asked.parents, parent) if name in _FLAT else _shape(parent)
        own, undone = shape, back
        if (name, index) in _SECOND:
            own, undone = (*shape, *[1] * (len(grid) - 2)), (*back, _viewed(parent, shape, 0))
        form = make(parent, grid, own, bool(back) and back[-1] is _turned)
        if make in (_multiplied, _table):  # the weight's other axis is summed over
            own = shape[-1:]
        if make is _convolved:  # samples stand first
            own = grid[1:]
        yield Operation(GradientEdge(parent, 0), grid, own, form, undone)


def _consumers(outputs: Sequence[Tensor]) -> tuple[_Parents, list[Any]]:
    """Return which nodes take what each node of a graph returns, and the nodes of leaves."""
    parents: _Parents = {}
    leaves, seen = [], set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node)
        for index, (child, place) in enumerate(node.next_functions):
            if child is not None:
                parents.setdefault((child, place), []).append((node, index))
                waiting.append(child)
    return parents, leaves


def _shape(node: Any) -> _Shape:
    """Return the shape of what a node's operation returned."""
    return tuple(node._input_metadata[0].shape)


def _grid(parents: _Parents, node: Any) -> _Shape:
    """Return the shape of a matrix product's output before its positions were flattened."""
    rows, columns = shape = _shape(node)
    for parent, _ in parents.get((node, 0), ()):
        if type(parent).__name__.rstrip("0123456789") in ("ViewBackward", "UnsafeViewBackward"):
            whole = _shape(parent)
            for axes in range(2, len(whole)):
                if math.prod(whole[:axes]) == rows:
                    return (*whole[:axes], columns)
    return shape


def _by_sample(values: Tensor, grid: _Shape, axis: int, count: int) -> Tensor:
    """Return values of a grid as [N, positions that stand with the axis, the other axes..]."""
    moved = values.reshape(grid).movedim(axis, 0)
    return moved.reshape(count, -1, *moved.shape[1:])


def _rows(values: Tensor, grid: _Shape, axis: int, count: int) -> Tensor:
    """Return values of a grid as [N, positions, last axis]."""
    whole = (*grid[:-1], values.shape[-1])
    return _by_sample(values, whole, axis, count).reshape(count, -1, values.shape[-1])


def _spread_over(values: Tensor, grid: _Shape, shape: _Shape, axis: int, count: int) -> Tensor:
    """Return the samples' gradients, [N, *shape], of what was spread over a grid of values.

    That is the values' sum over all axes that were spread.
    """
    own = [1] * (len(grid) - len(shape)) + list(shape)
    del own[axis]
    found = _by_sample(values, grid, axis, count)
    found = found.squeeze(1) if found.shape[1] == 1 else found.sum(1)
    over = [1 + a for a, size in enumerate(own) if size == 1 != found.shape[1 + a]]
    return (found.sum(over) if over else found).reshape(count, *shape)


_Form = Callable[[Tensor, int, int], Tensor]


def _added(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
        raise NoGraphRuleError
    return lambda d, axis, count: _spread_over(d, grid, shape, axis, count)


def _times(other: Tensor, grid: _Shape, shape: _Shape) -> _Form:
    return lambda d, axis, count: _spread_over(d * other, grid, shape, axis, count)


def _second(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    return _times(node._saved_other, grid, shape)


def _first(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    return _times(node._saved_self, grid, shape)


def _normed(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    x, mean, inverse = node._saved_input, node._saved_result1, node._saved_result2

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        normed = (x - mean).mul_(inverse).mul_(d)
        return _spread_over(normed, grid, shape, axis, count)

    return form


def _group_normed(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    x, mean, inverse = node._saved_input, node._saved_result1, node._saved_result2

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        groups = x.reshape(*mean.shape, -1)
        normed = (groups - mean.unsqueeze(-1)).mul_(inverse.unsqueeze(-1)).view(grid).mul_(d)
        return _spread_over(normed, grid, shape, axis, count)

    return form


def _multiplied(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    if getattr(node, "_saved_alpha", 1) != 1:
        raise NoGraphRuleError
    x = node._saved_mat1 if hasattr(node, "_saved_mat1") else node._saved_self

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        rows, given = _rows(d, grid, axis, count), _rows(x, grid, axis, count)
        if turned:  # what is turned back lies in one piece
            return (rows.transpose(1, 2) @ given).transpose(1, 2)
        return given.transpose(1, 2) @ rows

    return form


def _convolved(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
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


def _table(node: Any, grid: _Shape, shape: _Shape, turned: bool) -> _Form:
    ids = node._saved_indices
    if node._saved_sparse or node._saved_scale_grad_by_freq:
        raise NoGraphRuleError

    def form(d: Tensor, axis: int, count: int) -> Tensor:
        rows = _rows(d, grid, axis, count)
        which = _rows(ids.unsqueeze(-1), grid, axis, count)
        rows = rows.masked_fill(which == _padding(node, shape), 0)
        found = rows.new_zeros(count, *shape)
        return found.scatter_add_(1, which.expand_as(rows), rows)

    return form


def _padding(node: Any, shape: _Shape) -> int:
    """Return the entry of an embedding that has no gradient, -1 where all have one."""
    place = node._saved_padding_idx
    return place if 0 <= place < shape[0] else -1


_FLAT = frozenset({"Addmm", "Mm"})
"""Matrix products, which know no more than two axes."""

_SECOND = frozenset({("NativeGroupNorm", 1), ("NativeGroupNorm", 2), ("Convolution", 2)})
"""Weights that stand at the second axis, that of channels, and not at the last."""

_OPERATIONS: dict[tuple[str, int], Callable[[Any, _Shape, _Shape, bool], _Form]] = {
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


def _spread(node: Any, shape: _Shape) -> list[int]:
    """Return the sizes of the axes along which a node copies what it is given."""
    whole = _shape(node)
    own = [1] * (len(whole) - len(shape)) + list(shape)
    return [size for a, size in zip(own, whole, strict=True) if a == 1 != size]


def _turned(values: Tensor) -> Tensor:
    return values.transpose(1, 2)


def _viewed(_: Any, shape: _Shape, __: int) -> _Back:
    return lambda values: values.reshape(len(values), *shape)


def _kept(_: Any, shape: _Shape, __: int) -> _Back:
    return lambda values: values


def _exchanged(node: Any, shape: _Shape, _: int) -> _Back:
    axes = [_place(axis, len(shape)) for axis in (node._saved_dim0, node._saved_dim1)]
    if len(shape) == 2 and axes[0] != axes[1]:
        return _turned
    return lambda values: values.transpose(1 + axes[0], 1 + axes[1])


def _permuted(node: Any, shape: _Shape, _: int) -> _Back:
    order = [_place(axis, len(shape)) for axis in node._saved_dims]
    if order == [1, 0]:
        return _turned
    inverse = [0, *(1 + order.index(axis) for axis in range(len(order)))]
    return lambda values: values.permute(inverse)


def _sliced(node: Any, shape: _Shape, _: int) -> _Back:
    axis, size = _place(node._saved_dim, len(shape)), shape[_place(node._saved_dim, len(shape))]
    start, stop, step = (
        slice(_signed(node._saved_start), _signed(node._saved_end), node._saved_step)
    ).indices(size)

    def undo(values: Tensor) -> Tensor:
        found = values.new_zeros(len(values), *shape)
        found[(slice(None),) * (1 + axis) + (slice(start, stop, step),)] = values
        return found

    return undo


def _selected(node: Any, shape: _Shape, _: int) -> _Back:
    axis, index = _place(node._saved_dim, len(shape)), _signed(node._saved_index)

    def undo(values: Tensor) -> Tensor:
        found = values.new_zeros(len(values), *shape)
        found[(slice(None),) * (1 + axis) + (index,)] = values
        return found

    return undo


def _expanded(_: Any, shape: _Shape, __: int) -> _Back:
    def undo(values: Tensor) -> Tensor:
        missing = values.ndim - 1 - len(shape)
        found = values.sum(list(range(1, 1 + missing))) if missing else values
        over = [1 + a for a, size in enumerate(shape) if size == 1 != found.shape[1 + a]]
        return found.sum(over, keepdim=True) if over else found

    return undo


def _looked_up(node: Any, shape: _Shape, _: int) -> _Back:
    ids = node._saved_indices
    if node._saved_sparse or node._saved_scale_grad_by_freq:
        raise NoGraphRuleError

    def undo(values: Tensor) -> Tensor:
        rows = values.reshape(len(values), -1, shape[-1])
        which: Tensor = ids.reshape(-1)
        rows = rows * (which != _padding(node, shape)).to(rows).unsqueeze(1)
        found: Tensor = rows.new_zeros(len(rows), *shape)
        return found.index_add_(1, which, rows)

    return undo


def _indexed(node: Any, shape: _Shape, _: int) -> _Back:
    first, *others = node._saved_indices
    if first is None or first.dtype != torch.int64 or any(other is not None for other in others):
        raise NoGraphRuleError
    which: Tensor = first.reshape(-1) % shape[0]

    def undo(values: Tensor) -> Tensor:
        rows = values.reshape(len(values), -1, *shape[1:])
        found: Tensor = rows.new_zeros(len(rows), *shape)
        return found.index_add_(1, which, rows)

    return undo


def _split(node: Any, shape: _Shape, out: int) -> _Back:
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


_STEPS: dict[str, Callable[[Any, _Shape, int], _Back]] = {
    "T": lambda node, shape, out: _turned if len(shape) == 2 else _kept(node, shape, out),
    "Transpose": _exchanged,
    "Permute": _permuted,
    "View": _viewed,
    "UnsafeView": _viewed,
    "ReshapeAlias": _viewed,
    "Unsqueeze": _viewed,
    "Squeeze": _viewed,
    "Slice": _sliced,
    "Select": _selected,
    "Clone": _kept,
    "Index": _indexed,
    "Split": _split,
    "SplitWithSizes": _split,
}
"""What is done to a weight alone, before an operation takes it: how gradients go back past it."""
