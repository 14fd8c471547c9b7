"""Which optimizers make the steps of an optimizer, when some are inside others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.errors import ProbeError


@dataclass(frozen=True)
class Parts:
    """An optimizer and the optimizers that make its steps.

    Attributes:
        lead: The outermost that trains the network: the gradients of its parameters are read.
        all: Those that train the network, outermost first.
        innermost: Those of them that keep no other.
    """

    lead: Optimizer
    all: tuple[Optimizer, ...]
    innermost: tuple[Optimizer, ...]

    @property
    def grad_scale(self) -> Tensor | None:
        """What a `GradScaler` leaves to a fused optimizer to divide the gradients by."""
        scales = (getattr(each, "grad_scale", None) for each in self.all)
        return next((scale for scale in scales if isinstance(scale, Tensor)), None)

    @property
    def parameters(self) -> list[Tensor]:
        """What the lead trains, now."""
        return [p for group in self.lead.param_groups for p in group["params"]]


def find_parts(optimizer: object, network: nn.Module) -> Parts:
    """Find what makes the steps of an optimizer, or of a wrapper of one.

    Args:
        optimizer: What a training loop steps.
        network: What it trains.

    Raises:
        ProbeError: There is no optimizer, none of this network, or more than one.
    """
    kind = type(optimizer).__name__
    reached = [each for each in _inside(optimizer) if isinstance(each, Optimizer)]
    if not reached:
        raise ProbeError(
            f"{kind} is no optimizer and holds none: give attach() the torch optimizer that trains "
            "the network"
        )
    own = {id(p) for p in network.parameters()}
    mine = [each for each in reached if own & {id(p) for p in _parameters(each)}]
    if not mine:
        raise ProbeError(
            f"{kind} holds no parameter of the network (a copy, a flat partition or the network of "
            "before an action has others): give attach() the optimizer that was made from this "
            "network's parameters"
        )
    within = {id(each): _inside(each)[1:] for each in mine}
    outermost = [a for a in mine if not any(among(a, within[id(b)]) for b in mine)]
    if len(outermost) > 1:
        names = ", ".join(type(each).__name__ for each in outermost)
        raise ProbeError(f"{kind} holds several optimizers ({names}): attach a hook to each")
    innermost = [a for a in mine if not any(among(b, within[id(a)]) for b in mine)]
    return Parts((outermost or mine)[0], tuple(mine), tuple(innermost or mine[:1]))


def _inside(given: object) -> list[object]:
    """Return an object and all that it keeps that can step, outermost first."""
    found: list[object] = []
    queue = [given]
    while queue:
        each = queue.pop(0)
        if among(each, found):
            continue
        found.append(each)
        for value in list(getattr(each, "__dict__", {}).values()):
            many = list(value.values()) if isinstance(value, dict) else [value]
            many = list(value) if isinstance(value, list | tuple) else many
            queue += [part for part in many if _can_step(part)]
    return found


def _can_step(value: object) -> bool:
    known = isinstance(value, nn.Module | Tensor | type)
    return not known and callable(getattr(type(value), "step", None))


def among(value: object, many: Iterable[object]) -> bool:
    """Return whether an object is one of some, the very object."""
    return any(value is each for each in many)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    groups = getattr(optimizer, "param_groups", None) or []
    return [p for group in groups for p in group["params"]]
