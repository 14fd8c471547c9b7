"""The calls of a network's modules in one pass, and the first that differs between two passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainscope.task.batches import tensors

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
    handles = []
    for name, module in network.named_modules():
        place = _place(name, module)

        def enter(_: nn.Module, args: object, kwargs: object) -> None:
            given.append(_tensors((args, kwargs)))

        def leave(_: nn.Module, __: object, out: object, place: str = place) -> None:
            calls.append(Call(place, given.pop(), _tensors(out)))

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
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
