"""Products with a curvature matrix added to a vector tensor by tensor, so that nothing else is held.

`MatrixProduct` returns a product as a new vector, and the gradient that it differentiates stays as
long as its graph does. Of that gradient only the graph's edges are needed: its values are let go of
as they come, and each tensor of a product is added to where it is wanted as soon as it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from trainscope.probes.evaluation import Lent
from trainscope.probes.output_space import OutputSpace
from trainscope.probes.parameters import Measured
from trainscope.probes.streamed import Take, stream_gradient

Pieces = Sequence[Tensor]
"""A vector in pieces shaped like the parameters, zero where they are masked."""


class StreamedProduct:
    """(v, w) -> w + P H P v for the mean loss of the pinned samples, in place.

    Attributes:
        measured: The parameters, all used by the loss.
        size: The number of survivors.
        single: All samples are one batch, so that each piece is added to once.
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
        self.single = len(lent) <= lent.batch_size
        self._kept: list[Callable[[Pieces, Take], None]] = []

    def add(self, vector: Pieces, into: Pieces, look: Take | None = None) -> None:
        """Add a product to a vector.

        Args:
            vector: What is multiplied, in the parameters' dtypes.
            into: What it is added to; other memory than `vector`'s.
            look: Shown each piece of the product, before it is added.
        """
        masks = self.measured.masks

        def take(place: int, part: Tensor) -> None:
            mask = masks[place]
            part = part.detach() if mask is None else part.detach() * mask
            if look is not None:
                look(place, part)
            into[place].add_(part)

        for number in range(-(-len(self.lent) // self.lent.batch_size)):
            self._batch(number)(vector, take)
        self.lent.passes.add(backward=2 * len(self.lent))

    def _batch(self, number: int) -> Callable[[Pieces, Take], None]:
        if number < len(self._kept):
            return self._kept[number]
        start = number * self.lent.batch_size
        batch = self.lent.some(start, start + self.lent.batch_size)
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

        def product(vector: Pieces, take: Take) -> None:
            if edges:
                along = [vector[place] for place in edges]
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
