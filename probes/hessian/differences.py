"""Products with a curvature matrix from differences of gradients, where double backward fails.

Some operations have no derivative of their own derivative (Hardsigmoid, a custom function marked
`once_differentiable`), and a few have a wrong one (PyTorch's fused weight norm). The first
derivative is right, so (g(w + t u) - g(w - t u)) / 2t is H u, here in float64 on a copy, where t
can be so small that neither curvature of the gradient nor rounding matters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainscope.errors import ProbeError
from trainscope.networks.copies import whole_copy
from trainscope.probes.hessian.spaces import length_of
from trainscope.probes.hessian.spread import space_of
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured, measured
from trainscope.probes.subject.passes import NonFiniteError, derivative
from trainscope.task import Batch
from trainscope.task.batches import mapped, tensors

STEP = 1e-6
"""The length of t u as a share of the length of all weights, or of 1 where they are shorter."""


class DifferenceProduct:
    """v -> P H P v as `MatrixProduct` returns it, by central differences.

    Attributes:
        space: Where the vectors live.
        size: The number of its dimensions.
        count: Products made so far.
        error: The relative error of a product: what a step four times as long changed in a random
            one, at least the rounding of the float64 gradient.
    """

    def __init__(
        self, lent: Lent, weights: Measured, *, ggn: bool, generator: torch.Generator
    ) -> None:
        """Copy the network in float64, and measure the error of a product.

        Args:
            lent: The network and data.
            weights: The parameters; all used by the loss.
            ggn: Multiply with the Gauss-Newton matrix instead of the Hessian.
            generator: Draws the vector on which the error is measured.

        Raises:
            ProbeError: The network does not run in float64.
        """
        self.counted, self.ggn = lent, ggn
        self.space = space_of(weights, lent.weight.device)
        self.size, self.count = self.space.size, 0
        copied = whole_copy(lent.network).double()
        self.lent = replace(lent, network=copied, model=copied, batch=mapped(_wide, lent.batch))
        everything = measured(copied)
        rows = dict(zip(everything.names, everything.tensors, strict=True))
        self.weights = replace(weights, tensors=tuple(rows[name] for name in weights.names))
        with torch.no_grad():
            found = [x for x in tensors(self.lent.outputs(self.lent.look)) if x.is_floating_point()]
            if any(leaf.dtype != torch.float64 for leaf in found):
                raise ProbeError("the network computes in a dtype of its own, not in float64")
        self.start = [tensor.detach().clone() for tensor in self.weights.tensors]
        length = float(self.weights.squares(self.start).sum().sqrt())
        self.step = STEP * max(1.0, length)
        vector = self.space.random(generator)
        near, far = self._product(vector, self.step), self._product(vector, 4 * self.step)
        size, gap = length_of(self.space, near), length_of(self.space, near - far)
        self.error = max(1e-9, gap / size if size else 0.0)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product, float64.

        Raises:
            NonFiniteError: The product is NaN or infinite.
        """
        self.count += 1
        return self._product(vector.double(), self.step)

    def gradient(self) -> Tensor:
        """Return the mean gradient of the loss, [survivors], float64."""
        total = torch.zeros(self.space.local, dtype=torch.float64, device=self.lent.weight.device)
        for batch in self.lent.batches():
            loss = self.lent.mean(self.lent.losses(self.lent.outputs(batch), batch))
            total += self._pulled([loss])
            self._count(batch, 1)
        return self.lent.gradient([total])[0]

    def _product(self, vector: Tensor, step: float) -> Tensor:
        length = length_of(self.space, vector)
        if not length:
            return torch.zeros_like(vector)
        pieces = self.weights.unflatten(vector / length)
        found = self._gauss_newton(pieces, step) if self.ggn else self._hessian(pieces, step)
        if not bool(torch.isfinite(found).all()):
            raise NonFiniteError("a difference of gradients holds NaN or infinite values")
        return found * length

    def _hessian(self, pieces: list[Tensor], step: float) -> Tensor:
        sides = []
        for moved in (step, -step):
            self._move(pieces, moved)
            sides.append(self.gradient())
        self._move(pieces, 0.0)
        return (sides[0] - sides[1]) / (2 * step)

    def _gauss_newton(self, pieces: list[Tensor], step: float) -> Tensor:
        total = torch.zeros(self.space.local, dtype=torch.float64, device=self.lent.weight.device)
        for batch in self.lent.batches():
            space = OutputSpace(self.lent, self.lent.outputs(batch), batch)
            sides = []
            for moved in (step, -step):
                self._move(pieces, moved)
                with torch.no_grad():
                    found = tensors(self.lent.outputs(batch))
                sides.append([found[place] for place in space.places])
            self._move(pieces, 0.0)
            pushed = [(up - down) / (2 * step) for up, down in zip(*sides, strict=True)]
            inner = [curved * self.lent.mean_share for curved in space.curved(pushed)]
            # The weights were written to since: the graph is built again.
            again = OutputSpace(self.lent, self.lent.outputs(batch), batch)
            total += self._pulled(again.leaves, inner)
            self._count(batch, 4)
        return self.lent.gradient([total])[0]

    def _pulled(self, outputs: list[Tensor], along: list[Tensor] | None = None) -> Tensor:
        found = derivative(outputs, self.weights.tensors, along, materialize_grads=True)
        return self.weights.flatten(found)

    @torch.no_grad()
    def _move(self, pieces: list[Tensor], step: float) -> None:
        for tensor, start, piece in zip(self.weights.tensors, self.start, pieces, strict=True):
            tensor.copy_(start + step * piece if step else start)

    def _count(self, batch: Batch, forward: int) -> None:
        size = self.lent.task.size(batch)
        self.counted.passes.add(forward=forward * size, backward=size)


def _wide(leaf: Tensor) -> Tensor:
    return leaf.double() if leaf.is_floating_point() else leaf
