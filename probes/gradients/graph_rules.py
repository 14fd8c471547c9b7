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

from trainscope.probes.gradients.graph_operations import (
    FLAT,
    OPERATIONS,
    SECOND,
    SUMMED,
    NoGraphRuleError,
    Shape,
    returned_shape,
)
from trainscope.probes.gradients.graph_steps import (
    STEPS,
    Back,
    expanded,
    looked_up,
    spread_sizes,
    turned_back,
    viewed,
)

_MOST = 8
"""Ways to tell samples apart that are tried for one weight."""

_Parents = dict[tuple[Any, int], list[tuple[Any, int]]]
"""By a node and the place among what it returns: the nodes that take it, and as which argument."""


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
    grid: Shape
    shape: Shape
    form: Callable[[Tensor, int, int], Tensor]
    back: tuple[Back, ...] = ()

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
    asked: _Asked, node: Any, out: int, shape: Shape, back: tuple[Back, ...]
) -> Iterator[Operation]:
    """Yield the operations that take one thing that a node returns, which depends on one weight."""
    for parent, index in asked.parents.get((node, out), ()):
        name = type(parent).__name__.rstrip("0123456789").removesuffix("Backward")
        step = STEPS.get(name)
        if name == "Embedding" and not asked.each(parent, parent._saved_indices.shape):
            step = looked_up
        if name == "Expand" and not asked.each(parent, spread_sizes(parent, shape)):
            step = expanded
        if step is not None:
            for place, moved in enumerate(parent._input_metadata):
                undo = step(parent, shape, place)
                yield from _taken(asked, parent, place, tuple(moved.shape), (*back, undo))
            continue
        make = OPERATIONS.get((name, index))
        if make is None:
            raise NoGraphRuleError
        grid = _grid(asked.parents, parent) if name in FLAT else returned_shape(parent)
        own, undone = shape, back
        if (name, index) in SECOND:
            own, undone = (*shape, *[1] * (len(grid) - 2)), (*back, viewed(parent, shape, 0))
        form = make(parent, grid, own, bool(back) and back[-1] is turned_back)
        if (name, index) in SUMMED:  # the weight's other axis is summed over
            own = shape[-1:]
        if (name, index) == ("Convolution", 1):  # samples stand first
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


def _grid(parents: _Parents, node: Any) -> Shape:
    """Return the shape of a matrix product's output before its positions were flattened."""
    rows, columns = shape = returned_shape(node)
    for parent, _ in parents.get((node, 0), ()):
        if type(parent).__name__.rstrip("0123456789") in ("ViewBackward", "UnsafeViewBackward"):
            whole = returned_shape(parent)
            for axes in range(2, len(whole)):
                if math.prod(whole[:axes]) == rows:
                    return (*whole[:axes], columns)
    return shape
