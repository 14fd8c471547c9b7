"""Gradient norms at every step, read off the gradients that training has computed anyway."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, distributed, nn

from trainscope.probes.processes.exchange import SpreadParameter
from trainscope.probes.processes.shards import local_masks, local_part, parted, parts_of
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.when import Step
from trainscope.records import Measurement, Scalar, Status, Taken

NAME = "step_gradient"
BULK = 256
"""Norms wait on the device until there are so many, so that no step waits for the device."""

NARROW = frozenset({torch.float16, torch.bfloat16})


class StepNorms:
    r"""2-norm of the gradient of the training batch, on the surviving weights.

    .. math:: \lVert g \rVert = \sqrt{\sum_\ell \lVert m_\ell \odot g_\ell \rVert^2}

    Per tensor by `torch._foreach_norm`, in the gradient's dtype or float32, whichever is wider; the
    sum over tensors in float64. Under a `GradScaler` that has not unscaled yet, the scale is
    divided out. A step has one norm of each moment, that of the last look. Of parameters that are
    spread over processes each one's parts are added up, so that all of them must look.

    Args:
        network: Unwrapped: names are its parameters'.
        per_layer: Keep each tensor's norm too.
        unit: Of the norms: nats/weight of a cross-entropy.
    """

    title: ClassVar[str] = "Gradient of each step"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("norm", "gradient norm of a step", "nats/weight"),
        ScalarSpec(
            "mean_norm", "gradient norm, mean over an epoch's steps", "nats/weight", drawn="log"
        ),
        ScalarSpec("max_norm", "gradient norm, largest of an epoch's steps", "nats/weight"),
    )

    def __init__(
        self, network: nn.Module, per_layer: bool = False, unit: str = "nats/weight"
    ) -> None:
        self.per_layer = per_layer
        self.unit = unit
        self._network = weakref.ref(network)  # what waits must not keep a network alive
        self._named: dict[int, tuple[Tensor, str]] = {}
        self._masks: dict[int, Tensor] = {}
        self._parts: dict[str, SpreadParameter] = {}
        self._waiting: list[_Waiting] = []
        self._look_up()

    def _look_up(self) -> None:
        """Look the names and masks up: a step must not walk the modules."""
        network = self._network()
        if network is None:
            return
        lent = parted(network)
        self._parts, masks = parts_of(lent), local_masks(lent)
        self._named = {id(p): (p, name) for name, p in network.named_parameters()}
        self._masks = {i: masks[name] for i, (_, name) in self._named.items() if name in masks}

    @torch.no_grad()
    def look(
        self,
        parameters: Sequence[Tensor],
        step: Step,
        moment: str,
        *,
        scale: Tensor | None = None,
    ) -> None:
        """Queue the norms of the gradients that parameters hold, without a wait for the device.

        Args:
            parameters: An optimizer's.
            step: The step that is about to be made.
            moment: What to call this moment in the record.
            scale: What the gradients are still multiplied by.
        """
        held = [(p, grad) for p in parameters if (grad := p.grad) is not None]
        if not held:
            return
        owners, grads = [id(p) for p, _ in held], [grad for _, grad in held]
        if not self._named.keys() >= set(owners):
            self._look_up()  # a parameter was replaced
            for parameter, _ in held:  # or is not the network's: its name stays "?"
                self._named.setdefault(id(parameter), (parameter, "?"))
        if self._parts:
            grads = [local_part(grad) for grad in grads]
        if self._masks or {grad.layout for grad in grads} != {torch.strided}:
            grads = [self._kept(g, owner) for g, owner in zip(grads, owners, strict=True)]
        dtypes = {grad.dtype for grad in grads}
        if dtypes & NARROW:  # its norm may be beyond a dtype that holds every weight's gradient
            wide = reduce(torch.promote_types, dtypes, torch.float32)
            norms = torch._foreach_norm(grads, 2, wide)
        else:
            norms = torch._foreach_norm(grads)
        try:
            stacked = torch.stack(norms)
        except RuntimeError:  # a network that is spread over several devices
            stacked = torch.stack([norm.to(norms[0].device) for norm in norms])
        if self._parts:
            stacked = self._summed(stacked, owners)
        if scale is not None:
            stacked = stacked / scale
        self.discard(step, moment)
        self._waiting.append(_Waiting(stacked, owners, self._named, step, moment))

    def _summed(self, norms: Tensor, owners: Sequence[int]) -> Tensor:
        """Return norms of whole gradients from those of the parts that each process holds."""
        known = (self._parts.get(self._named[owner][1]) for owner in owners)
        holders = [distributed.get_world_size() if part is None else part.holders for part in known]
        squares = norms.double().square() / norms.new_tensor(holders, dtype=torch.float64)
        distributed.all_reduce(squares)
        return squares.sqrt()

    def discard(self, step: Step, moment: str) -> None:
        """Forget what waits of a moment: the step was not made, or was looked at again."""
        for at in reversed(range(len(self._waiting))):
            waiting = self._waiting[at]
            if waiting.step != step:  # those of earlier steps are made
                return
            if waiting.moment == moment:
                del self._waiting[at]

    def _kept(self, grad: Tensor, owner: int) -> Tensor:
        """Return the gradient of the surviving weights."""
        if grad.is_sparse:
            return grad.coalesce().values()
        mask = self._masks.get(owner)
        return grad if mask is None else grad * mask.to(grad.device)

    @property
    def due(self) -> bool:
        """Whether enough norms wait that reading them is worth a wait."""
        return len(self._waiting) >= BULK

    def drain(self) -> list[Taken]:
        """Return what waited, as measurements; this waits for the device."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        first = waiting[0].norms.device
        flat = torch.cat([each.norms.to(first, torch.float64) for each in waiting]).tolist()
        taken, at = [], 0
        for each in waiting:
            values = flat[at : at + len(each.owners)]
            at += len(each.owners)
            taken.append(self._taken(each, values))
        return taken

    def _taken(self, each: _Waiting, values: Sequence[float]) -> Taken:
        norm, reason, names = math.hypot(*values), None, []
        if self.per_layer or not math.isfinite(norm):
            names = [each.named[owner][1] for owner in each.owners]
            reason = _why_not_finite(names, values)
        arrays: dict[str, list[object]] = {}
        if self.per_layer:
            arrays = {
                "layers": [*names],
                "layer_norms": [value if math.isfinite(value) else None for value in values],
            }
        measurement = Measurement(
            NAME,
            Status.OK if reason is None else Status.NONFINITE,
            reason,
            scalars={
                "norm": Scalar.of(
                    norm if reason is None else math.nan, self.unit, reason=reason or ""
                )
            },
            arrays=arrays,
        )
        return Taken(measurement, int(each.step), each.moment, each.step.epoch)


def _why_not_finite(names: Sequence[str], values: Sequence[float]) -> str | None:
    """Return what is wrong with norms and where, None where all are finite."""
    missing = [name for name, value in zip(names, values, strict=True) if math.isnan(value)]
    infinite = [name for name, value in zip(names, values, strict=True) if math.isinf(value)]
    if not missing and not infinite:
        return None
    where = missing or infinite
    others = f" and {len(where) - 1} more" if len(where) > 1 else ""
    place = f"{where[0]}{others} of {len(values)} tensors"
    if missing:
        return f"the gradient is not finite: it holds NaN in {place}"
    return f"the gradient is not finite: it is infinite, or too large for a norm, in {place}"


@dataclass(frozen=True, slots=True)
class _Waiting:
    norms: Tensor
    owners: list[int]
    named: dict[int, tuple[Tensor, str]]
    step: Step
    moment: str
