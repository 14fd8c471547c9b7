"""Networks whose parameters are spread over processes, lent as plain ones.

The lent network holds, as its parameters, the local parts; a layer that reads one gets the whole,
gathered then and there. The derivative of gathering is to add up over the processes and to keep the
local part, and the other way round, so that derivatives of any order by the local parts are those
of the sum of what all processes computed, and no vector over the parameters is ever put together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from trainscope.errors import ProbeError
from trainscope.networks.masks import masks_of
from trainscope.probes.ranks import DO, Ranks, present

_PARTS, _MASKS = "_trainscope_parts", "_trainscope_masks"
_OURS = ("torch.distributed.",)
"""Modules whose hooks gather, or cut, what a layer is given."""


@dataclass(frozen=True)
class Part:
    """How one parameter is spread.

    Attributes:
        ranks: The processes.
        shape: Of the whole.
        stride: Likewise.
        mesh: Of the processes; None where each holds the whole.
        placements: What each axis of the mesh holds; empty likewise.
    """

    ranks: Ranks
    shape: torch.Size
    stride: tuple[int, ...]
    mesh: Any = None
    placements: tuple[Any, ...] = ()

    @property
    def holders(self) -> int:
        """Return how many processes hold each entry."""
        if self.mesh is None:
            return self.ranks.count
        sizes = zip(self.placements, self.mesh.shape, strict=True)
        return math.prod(size for placement, size in sizes if placement.is_replicate())

    @property
    def size(self) -> int:
        """Return the number of entries of the whole."""
        return self.shape.numel()

    def whole(self, local: Tensor) -> Tensor:
        """Return the whole of a tensor shaped like the parameter, from its local parts."""
        if self.mesh is None:
            return local
        return self._moved("gather", local, self.placements, _replicated(self.mesh), whole=False)

    def added(self, whole: Tensor) -> Tensor:
        """Return the local part of the sum over processes."""
        if self.mesh is None:
            return self.ranks.sum(whole)
        return self._moved("add up", whole, _partial(self.mesh), self.placements, whole=True)

    def cut(self, whole: Tensor) -> Tensor:
        """Return the local part of what all processes hold whole; nothing is sent."""
        if self.mesh is None:
            return whole
        from torch.distributed.tensor import DTensor

        spread = DTensor.from_local(whole, self.mesh, _replicated(self.mesh), run_check=False)
        return spread.redistribute(placements=self.placements).to_local().contiguous()

    def _moved(
        self, what: str, values: Tensor, held: Any, wanted: Any, *, whole: bool
    ) -> Tensor:
        from torch.distributed.tensor import DTensor

        def make() -> Tensor:
            shape = {} if whole else {"shape": self.shape, "stride": self.stride}
            spread = DTensor.from_local(
                values.contiguous(), self.mesh, held, run_check=False, **shape
            )
            return cast("Tensor", spread.redistribute(placements=wanted).to_local()).clone()

        with torch.no_grad():
            return self.ranks.exchange(f"{what} {tuple(self.shape)} {values.dtype}", make)

    def __deepcopy__(self, _: object) -> Part:
        return self  # process groups are no values


def _replicated(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    return (Replicate(),) * mesh.ndim


def _partial(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Partial

    return (Partial(),) * mesh.ndim


class _Gathered(Function):
    """From local parts to the whole, in every process."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, part: Part) -> Tensor:
        ctx.part = part
        found = part.whole(local)
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return cast("Tensor", _Added.apply(grad, ctx.part)), None


class _Added(Function):
    """From what every process has, to the local part of the sum."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, part: Part) -> Tensor:
        ctx.part = part
        found = part.added(whole)
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return cast("Tensor", _Gathered.apply(grad, ctx.part)), None


def parts_of(network: nn.Module) -> dict[str, Part]:
    """Return how each parameter of a lent network is spread; nothing where none is."""
    found: dict[str, Part] = vars(network).get(_PARTS, {})
    return found


def local_masks(network: nn.Module) -> dict[str, Tensor]:
    """Return the masks of a network by parameter; of a lent one their local parts."""
    found: dict[str, Tensor] | None = vars(network).get(_MASKS)
    return masks_of(network) if found is None else found


def plain_type(module: nn.Module) -> type:
    """Return the class of a module, also of one that gathers what it reads."""
    found: type = getattr(type(module), "_trainscope_kind", type(module))
    return found


def is_spread(tensor: Tensor) -> bool:
    """Tell whether a tensor is spread over processes; types are told by name, which is fast."""
    return any(base.__name__ == "DTensor" for base in type(tensor).__mro__)


def local_part(tensor: Any) -> Tensor:
    """Return what this process holds of a tensor."""
    found: Tensor = tensor.to_local() if is_spread(tensor) else tensor
    return found


def parted(network: nn.Module) -> nn.Module:
    """Return a network as a plain one, which shares its memory; itself where nothing is spread.

    Raises:
        ProbeError: Its parameters are spread in a way that cannot be seen through.
    """
    if parts_of(network) or not any(map(is_spread, network.parameters())):
        return network
    ranks = present()
    parts = {name: _part(name, p, ranks) for name, p in network.named_parameters()}
    by_id = {id(p): parts[name] for name, p in network.named_parameters()}
    made: dict[int, nn.Parameter] = {}

    def local(parameter: nn.Parameter) -> nn.Parameter:
        if id(parameter) not in made:
            value = local_part(parameter.detach())
            made[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
        return made[id(parameter)]

    def kind(module: nn.Module, plain: type) -> type:
        leaves = module._parameters.items()
        own = {leaf: by_id[id(p)] for leaf, p in leaves if p is not None}
        return _gathering(plain, own) if own else plain

    found = _rebuilt(network, local, kind)
    masks = masks_of(bare(network))
    vars(found)[_PARTS] = parts
    vars(found)[_MASKS] = {name: parts[name].cut(mask) for name, mask in masks.items()}
    return found


def whole(network: nn.Module) -> nn.Module:
    """Return a network with all of its parameters in this process; itself where nothing is spread.

    All processes call it.
    """
    network = parted(network)
    parts = parts_of(network)
    if not parts:
        return network
    made = {
        id(p): nn.Parameter(parts[name].whole(p.detach()), requires_grad=p.requires_grad)
        for name, p in network.named_parameters()
    }
    return _rebuilt(network, lambda p: made[id(p)], lambda _, plain: plain)


def bare(network: nn.Module) -> nn.Module:
    """Return a network without what spreads it: its parameters as they are, and no gathering."""
    return _rebuilt(network, lambda p: p, lambda _, plain: plain)


def _part(name: str, parameter: nn.Parameter, ranks: Ranks) -> Part:
    if not is_spread(parameter):
        return Part(ranks, parameter.shape, parameter.stride())
    spread: Any = parameter
    mesh, placements = spread.device_mesh, tuple(spread.placements)
    if mesh.size() != ranks.count:
        raise ProbeError(
            f"the parameter '{name}' is spread over {mesh.size()} of the processes, and "
            f"{ranks.count} of them measure: "
            + (DO if ranks.count == 1 else "give one mesh of all processes")
        )
    if any(not (each.is_replicate() or each.is_shard() or _strided(each)) for each in placements):
        raise ProbeError(
            f"the parameter '{name}' is spread as {placements}, which is neither shards nor "
            "replicas: measure it as one of these"
        )
    return Part(ranks, spread.shape, spread.stride(), mesh, placements)


def _strided(placement: object) -> bool:
    return type(placement).__name__ == "_StridedShard"


def _gathering(plain: type, own: Mapping[str, Part]) -> type:
    """Return a class of modules that read whole what they hold parts of."""

    def reading(leaf: str, part: Part) -> property:
        return property(lambda self: _Gathered.apply(self._parameters[leaf], part))

    made: dict[str, Any] = {leaf: reading(leaf, part) for leaf, part in own.items()}
    if issubclass(plain, nn.RNNBase):  # which keeps a list of them
        made["_flat_weights"] = property(
            lambda self: [getattr(self, leaf, None) for leaf in self._flat_weights_names],
            lambda self, _: None,
        )
    made |= {"_trainscope_kind": plain, "__module__": plain.__module__}
    return type(plain.__name__, (plain,), made)


def _rebuilt(
    network: nn.Module,
    parameter: Callable[[nn.Parameter], nn.Parameter],
    kind: Callable[[nn.Module, type], type],
) -> nn.Module:
    """Return a network of the same modules, buffers and hooks, less those that spread it."""
    known: dict[int, nn.Module] = {}

    def rebuilt(module: nn.Module) -> nn.Module:
        if id(module) in known:
            return known[id(module)]
        plain = _own_class(plain_type(module))
        made = cast("nn.Module", object.__new__(kind(module, plain)))
        known[id(module)] = made
        held = {
            name: copy.copy(value) if type(value) in _COPIED else value
            for name, value in vars(module).items()
            if name not in (_PARTS, _MASKS) and not name.startswith("__composable_api")
        }
        vars(made).update(held)
        for table in _HOOKS:
            hooks = held.get(table, {})
            for key in [key for key, hook in hooks.items() if _spreads(hook)]:
                del hooks[key]
        vars(made)["_parameters"] = {
            leaf: None if p is None else parameter(p) for leaf, p in module._parameters.items()
        }
        vars(made)["_buffers"] = {leaf: _plain(b) for leaf, b in module._buffers.items()}
        vars(made)["_modules"] = {
            leaf: None if m is None else rebuilt(m) for leaf, m in module._modules.items()
        }
        if isinstance(module, nn.RNNBase):
            leaves = vars(made)["_parameters"]
            vars(made)["_flat_weights"] = [leaves.get(leaf) for leaf in module._flat_weights_names]
        if "forward" in held:  # a method that was put in the place of the class's
            method = held["forward"]
            if getattr(method, "__self__", None) is module:
                vars(made)["forward"] = method.__func__.__get__(made)
        return made

    return rebuilt(network)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_COPIED = frozenset({dict, list, set, type(nn.Module()._forward_hooks)})


def _spreads(hook: object) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(_OURS)


def _own_class(kind: type) -> type:
    """Return the class that a module had before `fully_shard`."""
    names = [base.__name__ for base in kind.__mro__]
    if "FSDPModule" not in names[1:]:
        return kind
    return kind.__mro__[names.index("FSDPModule") + 1]


def _plain(buffer: Any) -> Any:
    return buffer.full_tensor() if isinstance(buffer, Tensor) and is_spread(buffer) else buffer
