"""Products of a vector with the Hessian, or with the generalised Gauss-Newton matrix, of the loss.

The graph of the first backward pass is built once and kept, so that each product costs one pass
through it and nothing else. Where the graphs of all batches are too large to keep, each is built
again for each product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainscope.probes.evaluation import Evaluation
from trainscope.probes.parameters import Measured
from trainscope.probes.passes import NonFiniteError, derivative

Product = Callable[[Tensor], Tensor]
"""From a vector [P] to the product with a symmetric matrix, [P]."""


class MatrixProduct:
    """v -> P H P v for the mean cross-entropy of the pinned samples, P onto surviving weights.

    Batches count by their size. A vector is [survivors], in any floating dtype; the product is
    float64, computed in the network's dtype.

    Attributes:
        size: Length of a vector.
        count: Products made so far.
    """

    def __init__(self, lent: Evaluation, measured: Measured, *, ggn: bool, keep: bool) -> None:
        """Build nothing yet.

        Args:
            lent: The network and data.
            measured: The parameters; all used by the loss.
            ggn: Multiply with the Gauss-Newton matrix instead of the Hessian.
            keep: Keep every batch's graph between products.
        """
        self.lent, self.measured, self.ggn, self.keep = lent, measured, ggn, keep
        self.size, self.count = measured.survivors, 0
        self._kept: list[Callable[[list[Tensor]], list[Tensor]]] = []

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product.

        Raises:
            NonFiniteError: The product is NaN or infinite.
        """
        pieces = self.measured.unflatten(vector)
        total = torch.zeros(self.size, dtype=torch.float64, device=vector.device)
        for batch in range(-(-len(self.lent) // self.lent.batch_size)):
            total += self.measured.flatten(self._batch(batch)(pieces)).double()
        self.lent.backward += 2 * len(self.lent)
        self.count += 1
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError("a product with the curvature matrix holds NaN or infinite values")
        return total

    def gradient(self) -> Tensor:
        """Return the mean gradient of the loss, [survivors], float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.lent.inputs.device)
        for inputs, labels in self.lent.batches():
            loss = F.cross_entropy(self.lent.logits(inputs), labels, reduction="sum")
            found = derivative(loss, self.measured.tensors, materialize_grads=True)
            self.lent.backward += len(inputs)
            total += self.measured.flatten(found).double() / len(self.lent)
        return total

    def _batch(self, number: int) -> Callable[[list[Tensor]], list[Tensor]]:
        """Return one batch's product, from its kept graph where there is one."""
        if number < len(self._kept):
            return self._kept[number]
        start = number * self.lent.batch_size
        inputs = self.lent.inputs[start : start + self.lent.batch_size]
        labels = self.lent.labels[start : start + self.lent.batch_size]
        logits = self.lent.logits(inputs)
        self.lent.backward += len(inputs)
        share = len(inputs) / len(self.lent)
        product = (
            self._gauss_newton(logits, share)
            if self.ggn
            else self._hessian(F.cross_entropy(logits, labels) * share)
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

    def _gauss_newton(self, logits: Tensor, share: float) -> Callable[[list[Tensor]], list[Tensor]]:
        tensors = self.measured.tensors
        dual = torch.zeros_like(logits, requires_grad=True)
        pulled = derivative(logits, tensors, dual, create_graph=True, materialize_grads=True)
        live = [i for i, g in enumerate(pulled) if g.requires_grad]
        p = logits.detach().softmax(1)

        def product(pieces: list[Tensor]) -> list[Tensor]:
            (pushed,) = derivative(
                [pulled[i] for i in live], dual, [pieces[i] for i in live], retain_graph=True
            )
            inner = p * (pushed - (p * pushed).sum(1, keepdim=True)) * (share / len(p))
            return list(
                derivative(logits, tensors, inner, retain_graph=True, materialize_grads=True)
            )

        return product
