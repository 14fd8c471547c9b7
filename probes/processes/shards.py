"""Networks whose parameters are spread over processes, lent as plain ones.

The lent network holds, as its parameters, the local parts; a layer that reads one gets the whole,
gathered then and there. The derivative of gathering is to add up over the processes and to keep the
local part, and the other way round, so that derivatives of any order by the local parts are those
of the sum of what all processes computed, and no vector over the parameters is ever put together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from trainscope.errors import ProbeError
from trainscope.networks.masks import masks_of
from trainscope.probes.processes.exchange import Bucket, Gathered, SpreadParameter, is_strided
from trainscope.probes.processes.ranks import DO, Ranks, present

_PARTS, _MASKS, _READ = "_trainscope_parts", "_trainscope_masks", "_trainscope_read"
_SPREADING = ("torch.distributed.", __name__)
"""Modules whose hooks gather, or cut, what a layer is given."""
AT_ONCE = 2**24
"""Bytes of small parameters that are gathered at once."""


def parts_of(network: nn.Module) -> dict[str, SpreadParameter]:
    """Return how each parameter of a lent network is spread; nothing where none is."""
    found: dict[str, SpreadParameter] = vars(network).get(_PARTS, {})
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
    made: dict[int, nn.Parameter] = {}

    def local(parameter: nn.Parameter) -> nn.Parameter:
        if id(parameter) not in made:
            value = local_part(parameter.detach())
            made[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
        return made[id(parameter)]

    found = _rebuilt(network, local, lambda module, plain: _reading(plain, module))
    _let_read(found, parts, ranks)
    masks = masks_of(bare(network))
    vars(found)[_PARTS] = parts
    vars(found)[_MASKS] = {name: parts[name].cut(mask) for name, mask in masks.items()}
    return found


def _let_read(network: nn.Module, parts: dict[str, SpreadParameter], ranks: Ranks) -> None:
    """Give every module what gathers its parameters."""
    named = dict(network.named_parameters())
    shapes = zip(*ranks.all([p.shape for p in named.values()]), strict=True)
    by_name = dict(zip(named, shapes, strict=True))
    places = {
        id(p): (module, leaf)
        for module in reversed(list(network.modules()))
        for leaf, p in module._parameters.items()
    }
    readers: dict[int, tuple[_Reader, int]] = {}
    for names in _bucketed(named, parts):
        bucket = Bucket([parts[name] for name in names], [by_name[name] for name in names])
        reader = _Reader(bucket, [places[id(named[name])] for name in names])
        readers |= {id(named[name]): (reader, i) for i, name in enumerate(names)}
        network.register_forward_pre_hook(reader.begin)
        network.register_forward_hook(reader.end, always_call=True)
    for module in network.modules():
        leaves = module._parameters.items()
        vars(module)[_READ] = {leaf: readers[id(p)] for leaf, p in leaves if p is not None}


def _bucketed(
    named: Mapping[str, Tensor], parts: Mapping[str, SpreadParameter]
) -> Iterator[list[str]]:
    """Yield names of parameters, in order, of one dtype and of up to `AT_ONCE` bytes together."""
    names: list[str] = []
    size = 0
    for name, tensor in named.items():
        own = parts[name].size * tensor.element_size()
        other = names and (tensor.dtype, tensor.device) != (
            named[names[0]].dtype,
            named[names[0]].device,
        )
        if names and (size + own > AT_ONCE or other):
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    if names:
        yield names


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


def _part(name: str, parameter: nn.Parameter, ranks: Ranks) -> SpreadParameter:
    if not is_spread(parameter):
        return SpreadParameter(ranks, parameter.shape, parameter.stride())
    spread: Any = parameter
    mesh, placements = spread.device_mesh, tuple(spread.placements)
    if mesh.size() != ranks.count:
        raise ProbeError(
            f"the parameter '{name}' is spread over {mesh.size()} of the processes, and "
            f"{ranks.count} of them measure: "
            + (DO if ranks.count == 1 else "give one mesh of all processes")
        )
    if any(not (each.is_replicate() or each.is_shard() or is_strided(each)) for each in placements):
        raise ProbeError(
            f"the parameter '{name}' is spread as {placements}, which is neither shards nor "
            "replicas: measure it as one of these"
        )
    return SpreadParameter(ranks, spread.shape, spread.stride(), mesh, placements)


class _Reader:
    """Gathers a bucket where one of its parameters is read, once in a pass."""

    def __init__(self, bucket: Bucket, places: Sequence[tuple[nn.Module, str]]) -> None:
        self.bucket, self.places = bucket, list(places)
        self._passing = False
        self._found: tuple[Tensor, ...] = ()

    def begin(self, *_: object) -> None:
        self._passing, self._found = True, ()

    def end(self, *_: object) -> None:
        self._passing, self._found = False, ()

    def read(self, place: int) -> Tensor:
        if not self._found:
            local = [cast("Tensor", module._parameters[leaf]) for module, leaf in self.places]
            found = cast("tuple[Tensor, ...]", Gathered.apply(self.bucket, *local))
            if not self._passing:
                return found[place]
            self._found = found
        return self._found[place]


def _reading(plain: type, module: nn.Module) -> type:
    """Return a class of modules that read whole what they hold parts of."""

    def reading(leaf: str) -> property:
        def read(self: Any) -> Tensor:
            reader, place = vars(self)[_READ][leaf]
            return cast("_Reader", reader).read(place)

        return property(read)

    own = [leaf for leaf, p in module._parameters.items() if p is not None]
    if not own:
        return plain
    made: dict[str, Any] = {leaf: reading(leaf) for leaf in own}
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
            if name not in (_PARTS, _MASKS, _READ) and not name.startswith("__composable_api")
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
    return str(getattr(hook, "__module__", "")).startswith(_SPREADING)


def _own_class(kind: type) -> type:
    """Return the class that a module had before `fully_shard`."""
    names = [base.__name__ for base in kind.__mro__]
    if "FSDPModule" not in names[1:]:
        return kind
    return kind.__mro__[names.index("FSDPModule") + 1]


def _plain(buffer: Any) -> Any:
    if not isinstance(buffer, Tensor) or not is_spread(buffer):
        return buffer
    spread: Any = buffer
    return spread.full_tensor()
