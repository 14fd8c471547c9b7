"""Products with a curvature matrix, added to a vector tensor by tensor: nothing else is held.

`MatrixProduct` returns a product as a new vector, and the gradient that it differentiates stays as
long as its graph does. Of that gradient only the graph's edges are needed: its values are let go of
as they come, and each part of a product is added to where it is wanted as soon as it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from trainscope.probes.hessian.convolutions import twice_differentiable
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.streamed import Take, stream_gradient

Pieces = Sequence[Tensor]
"""A vector in pieces shaped like the parameters, zero where they are masked."""


class StreamedProduct:
    """(v, w) -> w + P H P v for the mean loss of the pinned samples, in place.

    Attributes:
        measured: The parameters, all used by the loss.
        size: The number of survivors.
    """

    def __init__(self, lent: Lent, measured: Measured, *, ggn: bool, keep: bool) -> None:
        """Build nothing yet.

        Args:
            lent: The network and data.
            measured: The parameters; all used by the loss.
            ggn: Multiply with the Gauss-Newton matrix instead of the Hessian.
            keep: Keep every batch's graph between products.
        """
        self.lent, self.measured, self.ggn, self.keep = lent, measured, ggn, keep
        self.size = measured.survivors
        self._kept: list[Callable[[Pieces, Take], None]] = []

    def prepare(self) -> None:
        """Build the graphs that are kept, while no vector is held beside them yet."""
        for number in range(-(-len(self.lent) // self.lent.batch_size) if self.keep else 0):
            self._batch(number)

    def add(self, vector: Pieces, into: Pieces) -> None:
        """Add a product to a vector.

        Args:
            vector: What is multiplied, in the parameters' dtypes.
            into: What it is added to; other memory than `vector`'s.
        """
        self.each(vector, lambda place, part: into[place].add_(part))

    def each(self, vector: Pieces, take: Take) -> None:
        """Hand on a product in pieces shaped like parameters, which add up to it."""
        masks = self.measured.masks

        def masked(place: int, part: Tensor) -> None:
            mask = masks[place]
            take(place, part.detach() if mask is None else part.detach() * mask)

        for number in range(-(-len(self.lent) // self.lent.batch_size)):
            self._batch(number)(vector, masked)
        self.lent.passes.add(backward=2 * len(self.lent))

    def _batch(self, number: int) -> Callable[[Pieces, Take], None]:
        if number < len(self._kept):
            return self._kept[number]
        start = number * self.lent.batch_size
        batch = self.lent.some(start, start + self.lent.batch_size)
        with twice_differentiable():
            outputs = self.lent.outputs(batch)
        self.lent.passes.add(backward=self.lent.task.size(batch))
        product = (
            self._gauss_newton(OutputSpace(self.lent, outputs, batch))
            if self.ggn
            else self._hessian(self.lent.losses(outputs, batch).sum() / self.lent.terms)
        )
        if self.keep:
            self._kept.append(product)
        return product

    def _hessian(self, loss: Tensor) -> Callable[[Pieces, Take], None]:
        tensors, edges = self.measured.tensors, _edges(loss, self.measured.tensors)
        parts = AsTheyCome(edges.values(), tensors)

        def product(vector: Pieces, take: Take) -> None:
            if not edges:
                return
            along = [vector[place] for place in edges]
            with parts.taken(take):
                stream_gradient(list(edges.values()), tensors, take, along, retain_graph=self.keep)

        return product

    def _gauss_newton(self, space: OutputSpace) -> Callable[[Pieces, Take], None]:
        tensors, leaves = self.measured.tensors, space.leaves
        duals = [torch.zeros_like(leaf, requires_grad=True) for leaf in leaves]
        edges = _edges(leaves, tensors, duals)

        def product(vector: Pieces, take: Take) -> None:
            pushed = [torch.zeros_like(leaf) for leaf in leaves]
            along = [vector[place] for place in edges]
            stream_gradient(
                list(edges.values()),
                duals,
                lambda i, part: pushed[i].add_(part),
                along,
                retain_graph=True,
            )
            inner = [curved / self.lent.terms for curved in space.curved(pushed)]
            stream_gradient(leaves, tensors, take, inner, retain_graph=self.keep)

        return product


class AsTheyCome:
    """Hands on what each operation adds to a weight's gradient, before the engine sums it up.

    A product's graph uses each weight in the forward pass and in the backward pass. What the latter
    adds comes first, for all layers, and the engine would hold it until what the former adds has
    come, which is one more vector. So it is caught where it is made. What is not seen here (behind
    an operation other than a change of view) reaches the weight as ever; all of it adds up.
    """

    def __init__(self, edges: Iterable[GradientEdge], tensors: Sequence[Tensor]) -> None:
        """Put hooks on a graph, which it keeps.

        Args:
            edges: Where the backward pass begins.
            tensors: The weights.
        """
        self._take: Take | None = None
        places = {get_gradient_edge(tensor).node: i for i, tensor in enumerate(tensors)}
        shapes = [(tensor.shape, tensor.dtype) for tensor in tensors]
        for node in _nodes(edges):
            ways = [_way(parent, places) for parent, _ in node.next_functions]
            found = [(k, *way) for k, way in enumerate(ways) if way is not None]
            if found and not (len(node.next_functions) == 1 and node.name() in _VIEWS):
                node.register_hook(self._hook(found, shapes))

    @contextmanager
    def taken(self, take: Take) -> Iterator[None]:
        """Inside, what is added goes to `take`."""
        self._take = take
        try:
            yield
        finally:
            self._take = None

    def _hook(
        self,
        found: list[tuple[int, list[Node], int]],
        shapes: list[tuple[torch.Size, torch.dtype]],
    ) -> Callable[..., tuple[Tensor | None, ...] | None]:
        def hook(inputs: tuple[Tensor | None, ...], _: object) -> tuple[Tensor | None, ...] | None:
            if self._take is None:
                return None
            out = list(inputs)
            for k, views, place in found:
                part = out[k]
                if part is None:
                    continue
                for view in views:
                    part = cast(Callable[[Tensor], Tensor], view)(part)
                if isinstance(part, Tensor) and (part.shape, part.dtype) == shapes[place]:
                    self._take(place, part)
                    out[k] = None
            return tuple(out)

        return hook


_VIEWS = frozenset({"TBackward0", "TransposeBackward0", "PermuteBackward0", "ViewBackward0"})
"""Nodes of a weight's view, that need no more than the gradient to be carried out."""


def _way(node: Node | None, places: dict[Node, int]) -> tuple[list[Node], int] | None:
    """Return the views between a node and a weight, and the weight's place; None where it is none.

    Args:
        node: Where a gradient goes.
        places: Of the weights, by the nodes that gather their gradients.
    """
    views: list[Node] = []
    while node is not None and node not in places:
        if node.name() not in _VIEWS or len(node.next_functions) != 1:
            return None
        views.append(node)
        node = node.next_functions[0][0]
    return None if node is None else (views, places[node])


def _nodes(edges: Iterable[GradientEdge]) -> Iterator[Node]:
    seen: set[Node] = set()
    waiting: list[Node | None] = [edge.node for edge in edges]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [parent for parent, _ in node.next_functions]


def _edges(
    outputs: Tensor | Sequence[Tensor],
    tensors: Sequence[Tensor],
    along: Sequence[Tensor] | None = None,
) -> dict[int, GradientEdge]:
    """Return where the graph of each tensor's gradient ends, of those that have one."""
    found: dict[int, GradientEdge] = {}

    def take(place: int, gradient: Tensor) -> None:
        if gradient.requires_grad:
            found[place] = get_gradient_edge(gradient)

    stream_gradient(outputs, tensors, take, along, create_graph=True)
    return found
