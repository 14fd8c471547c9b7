"""Everything of a task's loss by brute force, from plain formulas; nothing of the probes in it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from task_cases import TaskCase
from torch import Tensor
from torch.func import functional_call


class Plain:
    """Gradients, Hessian and Gauss-Newton matrix over trainable, used, unmasked weights."""

    def __init__(self, case: TaskCase) -> None:
        self.case = case
        named = dict(case.network.named_parameters())
        buffers = dict(case.network.named_buffers())
        self.terms = sum(len(case.sample(self.outputs({}), i)) for i in range(case.count))
        loss = self.loss_of(self.outputs({}))
        trained = {name: p for name, p in named.items() if p.requires_grad}
        used = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        pairs = zip(trained, used, strict=True)
        self.names = [name for name, slope in pairs if slope is not None]
        self.shapes = [named[name].shape for name in self.names]
        masks = [buffers.get(f"{name}_mask") for name in self.names]
        self.keep = torch.cat(
            [
                (torch.ones(shape) if mask is None else mask).bool().flatten()
                for mask, shape in zip(masks, self.shapes, strict=True)
            ]
        )
        self.point = torch.cat([named[name].detach().flatten() for name in self.names])

    def outputs(self, weights: dict[str, Tensor]) -> Any:
        return functional_call(_Called(self.case), _prefixed(weights))

    def outputs_at(self, vector: Tensor) -> Any:
        pieces = vector.split([shape.numel() for shape in self.shapes])
        rows = zip(self.names, pieces, self.shapes, strict=True)
        return self.outputs({name: piece.view(shape) for name, piece, shape in rows})

    def sample_sum(self, out: Any, i: int) -> Tensor:
        return sum(self.case.sample(out, i), torch.zeros((), dtype=torch.float64))

    def loss_of(self, out: Any) -> Tensor:
        return sum(self.sample_sum(out, i) for i in range(self.case.count)) / self.terms

    def loss_at(self, vector: Tensor) -> Tensor:
        return self.loss_of(self.outputs_at(vector))

    @cached_property
    def sample_gradients(self) -> Tensor:
        """Return [N, P]: N / terms times the gradient of the sum of each sample's terms."""

        def sums(vector: Tensor) -> Tensor:
            out = self.outputs_at(vector)
            return torch.stack([self.sample_sum(out, i) for i in range(self.case.count)])

        rows = torch.autograd.functional.jacobian(sums, self.point)
        return rows * self.keep * self.case.count / self.terms

    @cached_property
    def hessian(self) -> Tensor:
        full = torch.autograd.functional.hessian(self.loss_at, self.point)
        return full[self.keep][:, self.keep]

    @cached_property
    def ggn(self) -> Tensor:
        parts = [part.detach() for part in self.case.parts(self.outputs_at(self.point))]
        sizes = [part.numel() for part in parts]

        def flat(vector: Tensor) -> Tensor:
            return torch.cat([p.flatten() for p in self.case.parts(self.outputs_at(vector))])

        def loss(values: Tensor) -> Tensor:
            pieces = [v.view(p.shape) for v, p in zip(values.split(sizes), parts, strict=True)]
            return self.loss_of(_put(self.case, self.outputs_at(self.point), pieces))

        jacobian = torch.autograd.functional.jacobian(flat, self.point)[:, self.keep]
        middle = torch.autograd.functional.hessian(loss, flat(self.point))
        return jacobian.T @ middle @ jacobian

    @cached_property
    def jacobians(self) -> Tensor:
        """Return d signal / d input of each sample, [N, K, D]."""
        rows = []
        for i in range(self.case.count):
            (point,) = self.case.points

            def signal(value: Tensor) -> Tensor:
                return self.case.signal(self.case.forward(self.case.network, value[None]))[0]

            rows.append(torch.autograd.functional.jacobian(signal, point[i]).flatten(1))
        return torch.stack(rows)


class _Called(torch.nn.Module):
    def __init__(self, case: TaskCase) -> None:
        super().__init__()
        self.case, self.network = case, case.network

    def forward(self) -> Any:
        batch = self.case.batch
        if isinstance(batch, dict):
            first = batch["x"] if "x" in batch else batch["input_ids"]
        else:
            first = batch[0]
        return self.network(first.clone())


def _prefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": value for name, value in weights.items()}


def _put(case: TaskCase, out: Any, pieces: list[Tensor]) -> Any:
    """Return outputs with other values in their parts."""
    if isinstance(out, Tensor):
        return pieces[0]
    if isinstance(out, tuple) and len(pieces) == 2:
        return tuple(pieces)
    if isinstance(out, tuple):
        return (pieces[0], *out[1:])
    if isinstance(out, dict) and "heads" in out:
        return {**out, "heads": [out["heads"][0], pieces[0]]}
    if isinstance(out, dict):
        name = "out" if "out" in out else "logits"
        return {**out, name: pieces[0]}
    out.logits = pieces[0]
    return out
