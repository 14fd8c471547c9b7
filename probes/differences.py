"""Products with a curvature matrix from differences of gradients, where double backward fails.

Some operations have no derivative of their own derivative (Hardsigmoid, a custom function marked
`once_differentiable`), and a few have a wrong one (PyTorch's fused weight norm). The first
derivative is right, so (g(w + t u) - g(w - t u)) / 2t is H u, here in float64 on a copy, where t
can be so small that neither curvature of the gradient nor rounding matters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainscope.errors import ProbeError
from trainscope.networks.copies import whole_copy
from trainscope.probes.evaluation import Evaluation
from trainscope.probes.parameters import Measured, measured
from trainscope.probes.passes import NonFiniteError, derivative

STEP = 1e-6
"""The length of t u as a share of the length of all weights, or of 1 where they are shorter."""


class DifferenceProduct:
    """v -> P H P v as `MatrixProduct` returns it, by central differences.

    Attributes:
        size: Length of a vector.
        count: Products made so far.
        error: The relative error of a product: what a step four times as long changed in a random
            one, at least the rounding of the float64 gradient.
    """

    def __init__(
        self, lent: Evaluation, weights: Measured, *, ggn: bool, generator: torch.Generator
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
        self.size, self.count = weights.survivors, 0
        copied = whole_copy(lent.network).double()
        self.lent = replace(lent, network=copied, model=copied, inputs=lent.inputs.double())
        everything = measured(copied)
        rows = dict(zip(everything.names, everything.tensors, strict=True))
        self.weights = replace(weights, tensors=tuple(rows[name] for name in weights.names))
        with torch.no_grad():
            if self.lent.logits(lent.look.double()).dtype != torch.float64:
                raise ProbeError("the network computes in a dtype of its own, not in float64")
        self.start = [tensor.detach().clone() for tensor in self.weights.tensors]
        squares = torch.stack([tensor.square().sum() for tensor in self.start])
        self.step = STEP * max(1.0, float(squares.sum().sqrt()))
        drawn = torch.randn(self.size, generator=generator, dtype=torch.float64)
        vector = drawn.to(lent.inputs.device)
        near, far = self._product(vector, self.step), self._product(vector, 4 * self.step)
        size = float(near.norm())
        self.error = max(1e-9, float((near - far).norm()) / size if size else 0.0)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product, float64.

        Raises:
            NonFiniteError: The product is NaN or infinite.
        """
        self.count += 1
        return self._product(vector.double(), self.step)

    def gradient(self) -> Tensor:
        """Return the mean gradient of the loss, [survivors], float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.lent.inputs.device)
        for inputs, labels in self.lent.batches():
            loss = F.cross_entropy(self.lent.logits(inputs), labels, reduction="sum")
            total += self._pulled(loss) / len(self.lent)
            self._count(len(inputs), len(inputs))
        return total

    def _product(self, vector: Tensor, step: float) -> Tensor:
        length = float(vector.norm())
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
        total = torch.zeros(self.size, dtype=torch.float64, device=self.lent.inputs.device)
        for inputs, _ in self.lent.batches():
            sides = []
            for moved in (step, -step):
                self._move(pieces, moved)
                with torch.no_grad():
                    sides.append(self.lent.logits(inputs))
            self._move(pieces, 0.0)
            pushed = (sides[0] - sides[1]) / (2 * step)
            logits = self.lent.logits(inputs)
            p = logits.detach().softmax(1)
            inner = p * (pushed - (p * pushed).sum(1, keepdim=True)) / len(self.lent)
            total += self._pulled(logits, inner)
            self._count(3 * len(inputs), len(inputs))
        return total

    def _pulled(self, outputs: Tensor, along: Tensor | None = None) -> Tensor:
        found = derivative(outputs, self.weights.tensors, along, materialize_grads=True)
        return self.weights.flatten(found)

    @torch.no_grad()
    def _move(self, pieces: list[Tensor], step: float) -> None:
        for tensor, start, piece in zip(self.weights.tensors, self.start, pieces, strict=True):
            tensor.copy_(start + step * piece if step else start)

    def _count(self, forward: int, backward: int) -> None:
        self.counted.forward += forward
        self.counted.backward += backward
