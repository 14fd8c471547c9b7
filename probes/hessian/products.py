"""Products of a vector with the Hessian, or with the generalised Gauss-Newton matrix, of the loss.

The graph of the first backward pass is built once and kept, so that each product costs one pass
through it and nothing else. Where the graphs of several batches are too large to keep, each is
built again for each product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainscope.probes.hessian.convolutions import twice_differentiable
from trainscope.probes.hessian.spread import space_of
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NonFiniteError, derivative

Product = Callable[[Tensor], Tensor]
"""From a vector [P] to the product with a symmetric matrix, [P], which the caller may change."""


class MatrixProduct:
    """v -> P H P v for the mean loss of the pinned samples, P onto surviving weights.

    Batches count by the number of their terms. A vector is [survivors], in any floating dtype, and
    so is the product, which is computed in the network's.

    Attributes:
        space: Where the vectors live.
        size: The number of its dimensions.
        count: Products made so far.
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
        self.space = space_of(measured, lent.weight.device)
        self.size, self.count = self.space.size, 0
        self._kept: list[Callable[[list[Tensor]], list[Tensor]]] = []

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product.

        Raises:
            NonFiniteError: The product is NaN or infinite.
        """
        pieces = self.measured.unflatten(vector)
        total: Tensor | None = None
        for number, indices in enumerate(self.lent.shares(len(self.lent))):
            part = self.measured.flatten(self._batch(number, indices)(pieces)).to(vector.dtype)
            total = part if total is None else total.add_(part)
        total = self.lent.gradient([torch.zeros_like(vector) if total is None else total])[0]
        self.lent.passes.add(backward=2 * len(self.lent) // self.lent.ranks.count)
        self.count += 1
        # One number shows NaN and infinity, and is seldom too large itself.
        if not math.isfinite(float(total.sum())) and not bool(torch.isfinite(total).all()):
            raise NonFiniteError("a product with the curvature matrix holds NaN or infinite values")
        return total

    def release(self) -> None:
        """Let go of the graphs that are kept; the next product builds them again."""
        self._kept.clear()

    def _batch(self, number: int, indices: Tensor) -> Callable[[list[Tensor]], list[Tensor]]:
        """Return one batch's product, from its kept graph where there is one."""
        if number < len(self._kept):
            return self._kept[number]
        batch = self.lent.task.select(self.lent.batch, indices)
        with twice_differentiable():
            outputs = self.lent.outputs(batch)
        self.lent.passes.add(backward=self.lent.task.size(batch))
        product = (
            self._gauss_newton(OutputSpace(self.lent, outputs, batch))
            if self.ggn
            else self._hessian(self.lent.mean(self.lent.losses(outputs, batch)))
        )
        if self.keep:
            self._kept.append(product)
        return product

    def _hessian(self, loss: Tensor) -> Callable[[list[Tensor]], list[Tensor]]:
        tensors = self.measured.tensors
        first = derivative(loss, tensors, create_graph=True, materialize_grads=True)
        live = [i for i, g in enumerate(first) if g.requires_grad]

        def product(pieces: list[Tensor]) -> list[Tensor]:
            return list(
                derivative(
                    [first[i] for i in live],
                    tensors,
                    [pieces[i] for i in live],
                    retain_graph=True,
                    materialize_grads=True,
                )
            )

        return product

    def _gauss_newton(self, space: OutputSpace) -> Callable[[list[Tensor]], list[Tensor]]:
        tensors, leaves = self.measured.tensors, space.leaves
        duals = [torch.zeros_like(leaf, requires_grad=True) for leaf in leaves]
        pulled = derivative(leaves, tensors, duals, create_graph=True, materialize_grads=True)
        live = [i for i, g in enumerate(pulled) if g.requires_grad]

        def product(pieces: list[Tensor]) -> list[Tensor]:
            pushed = derivative(
                [pulled[i] for i in live],
                duals,
                [pieces[i] for i in live],
                retain_graph=True,
                materialize_grads=True,
            )
            inner = [curved * self.lent.mean_share for curved in space.curved(list(pushed))]
            return list(
                derivative(leaves, tensors, inner, retain_graph=True, materialize_grads=True)
            )

        return product
