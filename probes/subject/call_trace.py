"""The calls of a network's modules in one pass, and the first that differs between two passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainscope.task.batches import tensors
from trainscope.task.calls import ModuleCall, hooked

Same = Callable[[Tensor, Tensor], bool]


@dataclass(frozen=True)
class Call:
    """One call of a module: what it is named, what it was given and what it made."""

    place: str
    given: list[Tensor]
    made: list[Tensor]


def trace(network: nn.Module, run: Callable[[], object]) -> list[Call]:
    """Return the calls of a forward pass, in the order in which they ended.

    Args:
        network: Whose modules are watched.
        run: Puts it forward.
    """
    calls: list[Call] = []
    given: list[list[Tensor]] = []

    def enter(call: ModuleCall[str]) -> None:
        given.append(_tensors((call.args, call.kwargs)))

    def leave(call: ModuleCall[str]) -> None:
        calls.append(Call(_place(call.key, call.module), given.pop(), _tensors(call.out)))

    with hooked(network.named_modules(), before=enter, after=leave):
        run()
    return calls


def _tensors(tree: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in tensors(tree)]


def _place(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, _NormBase) and module.running_mean is None:
        kind += " without running statistics"
    return f"the layer '{name}' ({kind})" if name else f"the forward method of {kind}"


def first_place(one: list[Call], two: list[Call], same: Same) -> str | None:
    """Return the innermost place that is given the same and makes something else."""
    for a, b in zip(one, two, strict=False):
        if a.place != b.place:
            return None
        if all_same(same, a.given, b.given) and not all_same(same, a.made, b.made):
            return a.place
    return None


def all_same(same: Same, one: list[Tensor], two: list[Tensor]) -> bool:
    """Tell whether two lists hold the same tensors."""
    return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
