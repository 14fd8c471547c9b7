"""Gradient norms at every step, read off the gradients that training has computed anyway."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.networks.masks import masks_of
from trainscope.probes.when import Step
from trainscope.records import Measurement, Scalar, Status, Taken

NAME = "step_gradient"
BULK = 256
"""Norms wait on the device until there are so many, so that no step waits for the device."""


@dataclass
class StepNorms:
    r"""2-norm of the gradient of the training batch, on the surviving weights.

    .. math:: \lVert g \rVert = \sqrt{\sum_\ell \lVert m_\ell \odot g_\ell \rVert^2}

    Per tensor by `torch._foreach_norm`, in the gradient's dtype; the sum over tensors in float64.
    Under a `GradScaler` that has not unscaled yet, the scale is divided out.

    Attributes:
        network: Unwrapped: names are its parameters'.
        per_layer: Keep each tensor's norm too.
    """

    network: nn.Module
    per_layer: bool = False
    _named: dict[int, str] = field(default_factory=dict, repr=False)
    _masks: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _waiting: list[_Waiting] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Look the names and masks up once: a step must not walk the modules."""
        masks = masks_of(self.network)
        for name, parameter in self.network.named_parameters():
            self._named[id(parameter)] = name
            if name in masks:
                self._masks[id(parameter)] = masks[name]

    @torch.no_grad()
    def look(self, optimizer: Optimizer, step: Step, moment: str) -> None:
        """Queue the norms of the gradients that an optimizer holds, without a wait."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        found = [p.grad for p in parameters]
        grads = [grad for grad in found if grad is not None]
        if not grads:
            return
        if len(grads) < len(parameters):
            parameters = [p for p, g in zip(parameters, found, strict=True) if g is not None]
        owners = [id(p) for p in parameters]
        if self._masks or any(grad.is_sparse for grad in grads):
            grads = [self._kept(g, owner) for g, owner in zip(grads, owners, strict=True)]
        norms = torch._foreach_norm(grads)
        try:
            stacked = torch.stack(norms)
        except RuntimeError:  # a network that is spread over several devices
            stacked = torch.stack([norm.to(norms[0].device) for norm in norms])
        scale = getattr(optimizer, "grad_scale", None)  # set by GradScaler for fused optimizers
        if scale is not None:
            stacked = stacked / scale
        self._waiting.append(_Waiting(stacked, owners, step, moment))

    def _kept(self, grad: Tensor, owner: int) -> Tensor:
        """Return the gradient of the surviving weights."""
        if grad.is_sparse:
            return grad.coalesce().values()
        mask = self._masks.get(owner)
        return grad if mask is None else grad * mask

    @property
    def due(self) -> bool:
        """Whether enough norms wait that reading them is worth a wait."""
        return len(self._waiting) >= BULK

    def drain(self) -> list[Taken]:
        """Return what waited, as measurements; this waits for the device."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        flat = torch.cat([each.norms.double() for each in waiting]).tolist()
        taken, at = [], 0
        for each in waiting:
            values = flat[at : at + len(each.owners)]
            at += len(each.owners)
            taken.append(self._taken(each, values))
        return taken

    def _taken(self, each: _Waiting, values: Sequence[float]) -> Taken:
        norm = Scalar.of(math.hypot(*values), "nats/weight")
        finite = norm.value is not None
        arrays: dict[str, list[object]] = {}
        if self.per_layer:
            arrays = {
                "layers": [self._named.get(owner, "?") for owner in each.owners],
                "layer_norms": [value if math.isfinite(value) else None for value in values],
            }
        measurement = Measurement(
            NAME,
            Status.OK if finite else Status.NONFINITE,
            None if finite else "the gradient is not finite",
            scalars={"norm": norm},
            arrays=arrays,
        )
        return Taken(measurement, int(each.step), each.moment, each.step.epoch)


@dataclass(frozen=True, slots=True)
class _Waiting:
    norms: Tensor
    owners: list[int]
    step: Step
    moment: str
