"""Networks whose parameters are spread over processes, lent as plain ones.

The lent network holds, as its parameters, the local parts; a layer that reads one gets the whole,
gathered then and there. The derivative of gathering is to add up over the processes and to keep the
local part, and the other way round, so that derivatives of any order by the local parts are those
of the sum of what all processes computed, and no vector over the parameters is ever put together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function

from trainscope.errors import ProbeError
from trainscope.networks.masks import masks_of
from trainscope.probes.ranks import DO, Ranks, present

_PARTS, _MASKS, _READ = "_trainscope_parts", "_trainscope_masks", "_trainscope_read"
_SPREADING = ("torch.distributed.", __name__)
"""Modules whose hooks gather, or cut, what a layer is given."""
AT_ONCE = 2**24
"""Bytes of small parameters that are gathered at once."""


@dataclass(frozen=True)
class SpreadParameter:
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

        held = _replicated(self.mesh)
        spread = DTensor.from_local(whole.detach(), self.mesh, held, run_check=False)
        return spread.redistribute(placements=self.placements).to_local().contiguous()

    def _moved(self, what: str, values: Tensor, held: Any, wanted: Any, *, whole: bool) -> Tensor:
        from torch.distributed.tensor import DTensor

        shape: dict[str, Any] = {} if whole else {"shape": self.shape, "stride": self.stride}

        def make() -> Tensor:
            given = values.detach().contiguous()
            spread = DTensor.from_local(given, self.mesh, held, run_check=False, **shape)
            return spread.redistribute(placements=wanted).to_local().clone()

        with torch.no_grad():
            return self.ranks.exchange(f"{what} {tuple(self.shape)} {values.dtype}", make)

    def __deepcopy__(self, _: object) -> SpreadParameter:
        return self  # process groups are no values


def _replicated(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    return (Replicate(),) * int(mesh.ndim)


def _partial(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Partial

    return (Partial(),) * int(mesh.ndim)


class Bucket:
    """Parameters that are gathered, and added up, at once: a message costs more than its bytes.

    Args:
        parts: How each is spread.
        shapes: Of the local parts of each, in every process.
    """

    def __init__(
        self, parts: Sequence[SpreadParameter], shapes: Sequence[Sequence[torch.Size]]
    ) -> None:
        self.parts, self.ranks = list(parts), parts[0].ranks
        self.axes = [_axis(part) for part in parts]
        self.simple = [i for i, axis in enumerate(self.axes) if axis is not None]
        self.shapes = [[shapes[i][rank] for i in self.simple] for rank in range(self.ranks.count)]
        self.longest = max(sum(math.prod(each) for each in own) for own in self.shapes)

    def whole(self, local: Sequence[Tensor]) -> list[Tensor]:
        """Return the whole of tensors shaped like the parameters, from their local parts."""
        found: list[Tensor] = [
            value if axis is not None else part.whole(value)
            for part, axis, value in zip(self.parts, self.axes, local, strict=True)
        ]
        if not self.simple:
            return found
        mine = self._flat([local[i] for i in self.simple])
        there = [torch.empty_like(mine) for _ in self.shapes]
        self.ranks.exchange(
            f"gather {self.longest} {mine.dtype}", lambda: distributed.all_gather(there, mine)
        )
        pieces = [self._shaped(row, shapes) for row, shapes in zip(there, self.shapes, strict=True)]
        for place, i in enumerate(self.simple):
            axis = cast("int", self.axes[i])
            found[i] = torch.cat([own[place] for own in pieces], axis)
        return found

    def added(self, whole: Sequence[Tensor]) -> list[Tensor]:
        """Return the local parts of the sums over processes."""
        found: list[Tensor] = [
            value if axis is not None else part.added(value)
            for part, axis, value in zip(self.parts, self.axes, whole, strict=True)
        ]
        if not self.simple:
            return found
        cut: list[tuple[Tensor, ...]] = []
        for place, i in enumerate(self.simple):
            axis = cast("int", self.axes[i])
            sizes = [own[place][axis] for own in self.shapes]
            cut.append(torch.split(whole[i], sizes, axis))
        rows = [self._flat([pieces[rank] for pieces in cut]) for rank in range(len(self.shapes))]
        mine = rows[0].new_empty(self.longest)
        self.ranks.exchange(
            f"add up {self.longest} {mine.dtype}",
            lambda: distributed.reduce_scatter(mine, rows),
        )
        for i, value in zip(self.simple, self._shaped(mine, self._own), strict=True):
            found[i] = value
        return found

    @property
    def _own(self) -> list[torch.Size]:
        return self.shapes[self.ranks.index]

    def _flat(self, values: Sequence[Tensor]) -> Tensor:
        """Return values in a row, as long as the longest of any process."""
        flat = torch.cat([value.detach().reshape(-1) for value in values])
        return nn.functional.pad(flat, (0, self.longest - len(flat)))

    def _shaped(self, flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in shapes]
        pieces = torch.split(flat[: sum(sizes)], sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def __deepcopy__(self, _: object) -> Bucket:
        return self  # process groups are no values


def _axis(part: SpreadParameter) -> int | None:
    """Return the axis along which all processes in order hold slices; None for any other way."""
    if part.mesh is None or part.mesh.ndim != 1 or part.ranks.count == 1:
        return None
    (placement,) = part.placements
    in_order = part.mesh.mesh.tolist() == list(range(part.ranks.count))
    if not in_order or not placement.is_shard() or _strided(placement):
        return None
    return int(placement.dim) % max(1, len(part.shape))


class _Gathered(Function):
    """From local parts to the wholes, in every process."""

    @staticmethod
    def forward(ctx: Any, bucket: Bucket, *local: Tensor) -> tuple[Tensor, ...]:
        ctx.bucket = bucket
        return tuple(each.view_as(each) for each in bucket.whole(local))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Added.apply(ctx.bucket, *grads)


class _Added(Function):
    """From what every process has, to the local parts of the sums."""

    @staticmethod
    def forward(ctx: Any, bucket: Bucket, *whole: Tensor) -> tuple[Tensor, ...]:
        ctx.bucket = bucket
        return tuple(each.view_as(each) for each in bucket.added(whole))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Gathered.apply(ctx.bucket, *grads)


def edges(node: Any) -> list[Any]:
    """Return the nodes of a graph that a node got its inputs from, past what gathers parameters."""
    found = []
    for parent, index in node.next_functions:
        gathers = type(parent).__name__ == "_GatheredBackward"
        found.append(parent.next_functions[index][0] if gathers else parent)
    return found


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
    if any(not (each.is_replicate() or each.is_shard() or _strided(each)) for each in placements):
        raise ProbeError(
            f"the parameter '{name}' is spread as {placements}, which is neither shards nor "
            "replicas: measure it as one of these"
        )
    return SpreadParameter(ranks, spread.shape, spread.stride(), mesh, placements)


def _strided(placement: object) -> bool:
    return type(placement).__name__ == "_StridedShard"


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
            found = cast("tuple[Tensor, ...]", _Gathered.apply(self.bucket, *local))
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
