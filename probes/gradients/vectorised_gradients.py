"""Samples' gradients by vmap: the network is differentiated for each, all in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from trainscope.probes.gradients.sample_moments import moments_of
from trainscope.probes.gradients.single_samples import (
    Cotangents,
    Loss,
    Moments,
    NoRuleError,
    Samples,
)
from trainscope.probes.subject.footprint import Forward
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.task import Batch, Outputs
from trainscope.task.trees import flattened

# An operation that vmap does not know, or the network's own code at shapes that it does not expect.
_VMAP_FAILS = (RuntimeError, TypeError, ValueError, LookupError)


class Vectorised(Samples):
    """Gradients of samples side by side.

    Attributes:
        losses: The samples' sums and numbers of terms of the loss, two tensors a chunk, where
            `means` differentiated them.
    """

    def __init__(self, lent: Lent, measured: Measured, places: Sequence[int] = (0,)) -> None:
        super().__init__(lent, measured, places)
        self.losses: list[tuple[Tensor, Tensor]] = []

    def means(self, batch: Batch, cotangents: Cotangents, loss: Loss | None, chunk: int) -> Moments:
        """Return squares, dots with the mean and the mean, so many samples at once."""
        self.losses.clear()
        held: list[list[Tensor]] = []
        size = self.lent.task.size(batch)
        for start in range(0, size, chunk):
            some = torch.arange(start, min(start + chunk, size))
            part = batch if chunk >= size else self.lent.task.select(batch, some)
            held += self._per_sample(part, cotangents, loss)
        dots, squares, means = self.zeros(size), [], []
        for k, parts in enumerate(zip(*held, strict=True)):
            mean, square, along = moments_of(parts)
            dots += along
            squares.append(square.double())
            means.append(mean)
            for row in held:  # no longer needed: its memory is the largest part
                row[k] = mean
        return torch.stack(squares), dots, means

    def squares(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots, as `SampleGradients` does."""
        count = self.lent.task.size(batch)
        squares, dots = self.zeros(len(self.measured.names), count), self.zeros(count)
        for gradients in self._per_sample(batch, cotangents):
            squares += torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients])
            for g, a in zip(gradients, along or (), strict=along is not None):
                dots += (g * a).reshape(len(g), -1).sum(1)
        return squares, dots

    def _per_sample(
        self, batch: Batch, cotangents: Cotangents, loss: Loss | None = None
    ) -> Iterator[list[Tensor]]:
        """Yield for each cotangent, or of the loss, the samples' gradients, masked, [N, ...]."""
        named = {
            f"network.{name}": tensor.detach()
            for name, tensor in zip(self.measured.names, self.measured.tensors, strict=True)
        }
        forward = Forward(self.lent.task, self.lent.network)
        count = self.lent.task.size(batch)
        leaves, structure = flattened(batch)
        rows = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in leaves]

        def outputs(weights: dict[str, Tensor], mine: list[Tensor]) -> tuple[Outputs, Batch]:
            own = iter(mine)
            sample = structure.holding(
                [
                    next(own).unsqueeze(0) if row else leaf
                    for leaf, row in zip(leaves, rows, strict=True)
                ]
            )
            return functional_call(forward, weights, (sample,)), sample

        def score(weights: dict[str, Tensor], mine: list[Tensor], r: list[Tensor]) -> Tensor:
            dots = [
                (leaf.reshape(part.shape) * part).sum()
                for leaf, part in zip(self.counted(outputs(weights, mine)[0]), r, strict=True)
            ]
            return torch.stack(dots).sum()

        mine = [leaf for leaf, row in zip(leaves, rows, strict=True) if row]
        if loss is not None:
            of_loss = vmap(
                grad_and_value(lambda w, m: loss(*outputs(w, m)), has_aux=True), in_dims=(None, 0)
            )
            try:
                found, (sums, counts) = _vmapped(of_loss, named, mine)
            except _VMAP_FAILS:  # the loss looks at values
                pass
            else:
                self.losses.append((sums.detach().double(), counts.detach()))
                self.lent.passes.add(forward=count, backward=count)
                yield self.measured.keep(list(found.values()))
                return
        per_sample = vmap(grad(score), in_dims=(None, 0, 0))
        wanted = cotangents(self.lent.outputs(batch), batch)
        for r in wanted:
            try:
                found = _vmapped(per_sample, named, mine, [part.detach() for part in r])
            except _VMAP_FAILS as error:
                raise NoRuleError from error
            self.lent.passes.add(forward=count)
            self.lent.passes.add(backward=count)
            yield self.measured.keep(list(found.values()))


def _vmapped(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function makes, without vmap's warning of an operation taken in a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule")
        return function(*arguments)
