"""Takes whole residual blocks out of a network's depth: where one was, its input goes on.

A network's depth is in lists of blocks of one class (`nn.ModuleList`, `nn.Sequential`). A block can
go if its result has the shape of its input and still depends on its input where all its matrices
are zero, as a residual connection makes it. What is left is tried against the network in which the
blocks that went pass their input on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from trainscope.errors import ActionError, first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.depth import block_lists, drop
from trainscope.networks.example import Example, Inputs, tensors_of
from trainscope.networks.masks import drop_masks
from trainscope.networks.weights import MULTIPLIED, weights_in
from trainscope.records import LayerChange
from trainscope.sparsify.action import INFLUENCE, Action
from trainscope.sparsify.candidate import some
from trainscope.sparsify.choose import lowest
from trainscope.sparsify.criteria import scored
from trainscope.sparsify.ratios import to_prune
from trainscope.sparsify.statistics import Source, Subject, Unit
from trainscope.sparsify.verify import run
from trainscope.task.calls import ModuleCall, hooked
from trainscope.task.modes import evaluating

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}


@dataclass(frozen=True)
class Stack:
    """One list of residual blocks.

    Attributes:
        name: The list's name in the network.
        keys: The names of its blocks in it, in order.
        free: Which of them can go.
        spared: Why the others cannot, by the block's name in the network.
        influence: How much each changes its input: 1 - the mean cosine of its input and its
            result over all places (Men et al., "ShortGPT", 2024).
    """

    name: str
    keys: tuple[str, ...]
    free: tuple[int, ...]
    spared: Mapping[str, str] = field(default_factory=dict)
    influence: tuple[float, ...] = ()

    def path(self, place: int) -> str:
        """Return the name of a block in the network."""
        return f"{self.name}.{self.keys[place]}".lstrip(".")


@dataclass(frozen=True)
class Dropped:
    """What went: the places of the blocks by list, with what is to be told of it."""

    blocks: Mapping[str, tuple[int, ...]]
    layers: tuple[LayerChange, ...]
    meaning: str
    notes: tuple[str, ...]


def drop_some(network: nn.Module, action: Action, source: Source) -> Dropped:
    """Take the share of blocks that an action asks for out of each list, in place.

    Raises:
        ActionError: There are no blocks that can go.
    """
    ratio = action.blocks or 0.0
    stacks = find_stacks(network, source.inputs)
    if not any(stack.free for stack in stacks):
        reasons = [f"{name}: {why}" for stack in stacks for name, why in stack.spared.items()]
        raise ActionError(
            "no block can be taken out: "
            + ("; ".join(reasons[:3]) or "no list of residual blocks of one class was found")
            + "; leave --blocks out",
            field=("blocks",),
        )
    worth = _worth(network, stacks, action, source)
    chosen: dict[str, tuple[int, ...]] = {}
    notes: list[str] = []
    for stack in (each for each in stacks if each.free):
        asked = to_prune(len(stack.keys), ratio)
        count = min(asked, len(stack.free))
        scores = worth[stack.name][list(stack.free)]
        gone = [stack.free[place] for place in torch.nonzero(lowest(scores, count)).flatten()]
        if gone:
            chosen[stack.name] = tuple(gone)
        if count < asked:
            notes.append(f"{asked - count} blocks fewer of {stack.name} went than asked")
        if stack.spared:
            why = next(iter(stack.spared.values()))
            notes.append(f"blocks left alone: {some(list(stack.spared))} ({why})")
    if not chosen:
        said = "no block would be taken out: every list has one block; leave it out"
        raise ActionError(said, field=("blocks",))
    layers = tuple(
        LayerChange(each.name, len(each.keys), len(each.keys) - len(chosen[each.name]))
        for each in stacks
        if each.name in chosen
    )
    drop(network, chosen)
    total = sum(layer.before for layer in layers)
    lists = f"{len(layers)} list{'s' * (len(layers) > 1)}"
    gone_names = ", ".join(f"{n} {', '.join(map(str, p))}" for n, p in chosen.items())
    notes.append(f"blocks taken out: {gone_names}")
    return Dropped(
        chosen, layers, f"{100 * ratio:.6g} % of {total} blocks in {lists}", tuple(notes)
    )


def find_stacks(network: nn.Module, inputs: Inputs) -> list[Stack]:
    """Find the lists of blocks of a network, and which of their blocks can go.

    Args:
        network: Not touched.
        inputs: The shape of one input, or an example of a call.
    """
    twin = evaluating(whole_copy(network))
    drop_masks(twin)
    lists = block_lists(twin)
    seen = _seen(twin, inputs, [f"{n}.{k}".lstrip(".") for n, keys in lists.items() for k in keys])
    stacks = []
    for name, keys in lists.items():
        free, spared, influence = [], {}, []
        for place, key in enumerate(keys):
            path = f"{name}.{key}".lstrip(".")
            why = _why_not(twin.get_submodule(path), seen.get(path))
            if why is None:
                free.append(place)
            else:
                spared[path] = why
            influence.append(_influence(seen[path]) if path in seen else 0.0)
        stacks.append(Stack(name, keys, tuple(free), spared, tuple(influence)))
    if not any(stack.free for stack in stacks):
        return [stack for stack in stacks if any(why != _CHANGES for why in stack.spared.values())]
    tried = [(stack.name, place) for stack in stacks for place in stack.free]
    failed = _failing(network, inputs, stacks, tried)
    found = []
    for stack in stacks:
        wrong = {
            place: failed[stack.name, place]
            for place in stack.free
            if (stack.name, place) in failed
        }
        spared = {**stack.spared, **{stack.path(place): each for place, each in wrong.items()}}
        free = [place for place in stack.free if place not in wrong]
        found.append(Stack(stack.name, stack.keys, tuple(free), spared, stack.influence))
    return [stack for stack in found if stack.free or set(stack.spared.values()) != {_CHANGES}]


_CHANGES = "its result has not the shape of its input"
_Call = tuple[Example, Tensor, Tensor]
"""The arguments of a call, its first tensor, and the first tensor of its result."""


def _seen(network: nn.Module, inputs: Inputs, names: Sequence[str]) -> dict[str, _Call]:
    """Return the first call of each module."""
    found: dict[str, _Call] = {}

    def note(call: ModuleCall[str]) -> None:
        tensors, results = tensors_of((call.args, call.kwargs)), tensors_of(call.out)
        if call.key not in found and tensors and results:
            kept = Example.of_call(call.args, call.kwargs)
            first, result = next(iter(tensors.values())), next(iter(results.values()))
            found[call.key] = (kept, first.detach().clone(), result.detach().clone())

    with hooked([(name, network.get_submodule(name)) for name in names], after=note):
        run(network, inputs)
    return found


def _why_not(block: nn.Module, call: _Call | None) -> str | None:
    if call is None:
        return "it is not used in eval mode"
    example, given, result = call
    if given.shape != result.shape or given.dtype != result.dtype:
        return _CHANGES
    return None if _is_residual(block, example) else "it has no residual connection"


@torch.no_grad()
def _is_residual(block: nn.Module, example: Example) -> bool:
    """Say whether a block's result depends on its input where all its matrices are zero."""
    twin = evaluating(whole_copy(block))
    for parameter in twin.parameters():
        parameter.zero_() if parameter.ndim > 1 else parameter.fill_(0.5)
    try:
        one = next(iter(tensors_of(example.run(twin)).values()))
        changed = _pytree.tree_map(
            lambda t: (
                t * 1.5 + 0.1 * torch.arange(t.numel()).view(t.shape).sin()
                if isinstance(t, Tensor) and t.is_floating_point() and t.ndim > 1
                else t
            ),
            (example.args[:1], example.args[1:], dict(example.kwargs)),
        )
        first = changed[0] if example.args else ()
        kwargs = dict(example.kwargs) if example.args else changed[2]
        other = Example((*first, *example.args[1:]), kwargs)
        two = next(iter(tensors_of(other.run(twin)).values()))
    except Exception:  # it does not run alone: the trial of the whole network decides
        return True
    return not torch.allclose(one, two)


def _influence(call: _Call) -> float:
    """Return 1 - the mean cosine of a block's input and result, along the channels."""
    _, given, result = call
    if given.shape != result.shape or given.ndim < 2:
        return 0.0
    axis = 1 if given.ndim == 4 and given.shape[1] != given.shape[-1] else -1
    cosine = torch.cosine_similarity(given.double(), result.double(), dim=axis)
    return 1 - float(cosine.mean())


def _worth(
    network: nn.Module, stacks: Sequence[Stack], action: Action, source: Source
) -> dict[str, Tensor]:
    """Return what each block of each list is worth."""
    if action.criterion == INFLUENCE:
        return {s.name: torch.tensor(s.influence, dtype=torch.float64) for s in stacks}
    statistics = source.collect(network, action.needs, action.by.name)
    found = {}
    for stack in (each for each in stacks if each.free):
        statistics.generator.manual_seed(action.seed)  # each list draws as if it were alone
        scores = [
            scored(action.by, _subject(network, stack.path(place)), statistics).double().cpu()
            for place in range(len(stack.keys))
        ]
        found[stack.name] = torch.cat(scores)
    return found


def _subject(network: nn.Module, path: str) -> Subject:
    """Return a block as one row of all weights of its layers."""
    block = network.get_submodule(path)
    weights = {f"{path}.{w.name}": w for w in weights_in(block) if w.kind in MULTIPLIED}
    names = tuple(weights)

    def gather(values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([values[n].flatten() for n in names] or [torch.zeros(1)]).unsqueeze(0)

    row = gather({name: weight.tensor for name, weight in weights.items()})
    return Subject(path, row, (), names, Unit.BLOCKS, gather)


def _failing(
    network: nn.Module, inputs: Inputs, stacks: Sequence[Stack], tried: list[tuple[str, int]]
) -> dict[tuple[str, int], str]:
    """Return the blocks whose loss is not what it should be, and why; halves are tried."""
    sizes = {stack.name: len(stack.keys) for stack in stacks}
    counts = {name: sum(each[0] == name for each in tried) for name in sizes}
    whole = any(counts[name] == sizes[name] for name in sizes)  # one of each must stay
    why = None if whole and len(tried) > 1 else _try(network, inputs, stacks, tried)
    if why is None and not whole:
        return {}
    if len(tried) == 1:
        return {} if why is None else {tried[0]: why}
    parts = (tried[0::2], tried[1::2])
    return {k: v for part in parts for k, v in _failing(network, inputs, stacks, part).items()}


def _try(
    network: nn.Module, inputs: Inputs, stacks: Sequence[Stack], gone: list[tuple[str, int]]
) -> str | None:
    whole, dtype = evaluating(whole_copy(network).double()), torch.float64
    try:
        run(whole, inputs)
    except Exception:  # its code may name a dtype
        whole, dtype = evaluating(whole_copy(network)), torch.float32
    cut = whole_copy(whole)
    blocks: dict[str, list[int]] = {}
    spared: list[tuple[str, nn.Module]] = []
    for stack in stacks:
        places = [place for name, place in gone if name == stack.name]
        if places:
            blocks[stack.name] = places
        paths = [stack.path(place) for place in places]
        spared += [(path, whole.get_submodule(path)) for path in paths]
    try:
        with hooked(spared, after=_passed_on):
            expected = run(whole, inputs)
        drop(cut, blocks)
        got = run(cut, inputs)
    except Exception as error:
        return f"the network does not run without it: {first_line(error).rstrip('. ')}"
    for name, right in expected.items():
        left = got.get(name)
        if left is None or left.shape != right.shape:
            return "the network without it returns something else"
        if right.is_floating_point() and right.numel():
            bound = _TOLERANCE[dtype] * float(right.abs().max())
            if not torch.allclose(left, right, rtol=0.0, atol=bound, equal_nan=True):
                return "the network without it is not the one in which it passes its input on"
    return None


def _passed_on(call: ModuleCall[str]) -> Any:
    """Return a block's result with its input in the place of the first tensor."""
    given = next(iter(tensors_of((call.args, call.kwargs)).values()))
    leaves, spec = _pytree.tree_flatten(call.out)
    place = next(n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    leaves[place] = given
    return _pytree.tree_unflatten(leaves, spec)
