"""Where a network's attention heads are: which slices of which parameters each head owns.

Names tell little: queries, keys and values are packed, interleaved by head, shared by a group of
heads, or split over modules. So each attention is asked. In a copy with random weights all columns
of its output layer are set to zero but those of one head; the parameters that its result still
depends on are that head's. Heads that share a parameter (grouped keys and values) are one unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Example, Inputs, as_example, tensors_of
from trainscope.networks.heads import HEAD, SIZE, is_count, own_numbers
from trainscope.networks.linear import input_axis, is_linear, widths
from trainscope.networks.masks import drop_masks
from trainscope.task.calls import ModuleCall, hooked
from trainscope.task.modes import eval_mode, evaluating

_SIZES = frozenset({"d_k", "d_v", "d_kv", "key_value_proj_dim", "kv_channels"})
_MOST_LINEAR = 16
"""A module with more linear layers than this is no attention but holds some."""


@dataclass(frozen=True)
class Attention:
    """The heads of one attention.

    Attributes:
        name: The module that knows how many heads there are.
        whole: The module that holds all of it, output layer too; often the same.
        output: The name of its output layer.
        heads: How many heads there are.
        labels: For each parameter that heads own, the axis and the unit [length] of each slice of
            it, by its name in the network.
        units: Heads, or groups of heads that share keys and values: what can go.
        call: What `whole` was called with.
    """

    name: str
    whole: str
    output: str
    heads: int
    labels: dict[str, tuple[int, Tensor]]
    units: int
    call: Example


def find_attentions(
    network: nn.Module, inputs: Inputs
) -> tuple[tuple[Attention, ...], dict[str, str]]:
    """Find the attentions of a network whose heads can be told apart.

    Args:
        network: Not touched.
        inputs: The shape of one input, or an example of a call.

    Returns:
        The attentions in the order of the modules, and why modules that have heads are none.
    """
    twin = evaluating(whole_copy(network))
    drop_masks(twin)
    parts = dict(twin.named_modules())
    hinted = [name for name in reversed(parts) if _may_have_heads(parts[name])]
    around = {name: _around(name) for name in hinted}
    calls = _calls(twin, inputs, {each for names in around.values() for each in names})
    found: dict[str, Attention] = {}
    reasons: dict[str, str] = {}
    for name in hinted:
        if any(within(other.name, name) for other in found.values()):
            continue
        for whole in around[name]:
            known = [other for other in found.values() if within(other.name, whole)]
            if whole not in calls or known or _linear_layers(parts[whole]) > _MOST_LINEAR:
                continue
            attention = _attention(parts, name, whole, calls[whole])
            if attention is not None:
                found[name] = attention
                break
        if name not in found and not any(within(other, name) for other in reasons):
            reasons[name] = "its heads cannot be told apart"
    order = {name: place for place, name in enumerate(parts)}
    sure = sorted(found.values(), key=lambda attention: order[attention.name])
    unsure = {name: why for name, why in reasons.items() if "attention" in _words(parts[name])}
    return tuple(sure), unsure


def _may_have_heads(module: nn.Module) -> bool:
    if not sum(1 for _ in module.parameters(recurse=True)) > 0 or is_linear(module):
        return False
    return bool(_guesses(module))


def _guesses(module: nn.Module) -> tuple[set[int], set[int]] | None:
    """Return how many heads, or of which size, a module may have; None where nothing says so."""
    counts = {value for name, value in own_numbers(module) if is_count(name)}
    sizes = {
        value
        for name, value in own_numbers(module)
        if name in _SIZES or (HEAD.search(name) and SIZE.search(name))
    }
    config = vars(module).get("config")
    told = getattr(config, "num_attention_heads", None) if config is not None else None
    if type(told) is int:
        counts.add(told)
    return (counts, sizes) if counts or sizes else None


def _words(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _around(name: str) -> list[str]:
    """Return a module's name, its parent's and its parent's parent's."""
    names = [name]
    while "." in names[-1] and len(names) < 3:
        names.append(names[-1].rpartition(".")[0])
    return names


def within(name: str, outer: str) -> bool:
    """Tell whether a module is another, or in it; every one is in the network, ""."""
    return not outer or name == outer or name.startswith(f"{outer}.")


def _linear_layers(module: nn.Module) -> int:
    return sum(is_linear(inner) for inner in module.modules())


def _calls(network: nn.Module, inputs: Inputs, names: set[str]) -> dict[str, Example]:
    """Return what modules are called with first, caches left out."""
    found: dict[str, Example] = {}

    def note(call: ModuleCall[str]) -> None:
        if call.key not in found:
            found[call.key] = Example.of_call(call.args, call.kwargs)

    named = [(name, network.get_submodule(name)) for name in names]
    with hooked(named, before=note), torch.no_grad(), eval_mode(network), slow_attention():
        as_example(inputs).run(network)
    return found


class slow_attention:  # noqa: N801 - a context manager
    """Inside, torch's own layers call each other and no fused operator in their place."""

    def __enter__(self) -> None:
        self._fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self._fused)


def _attention(
    parts: dict[str, nn.Module], name: str, whole: str, call: Example
) -> Attention | None:
    """Return the attention in a module, None where none is found."""
    counts, sizes = _guesses(parts[name]) or (set(), set())
    twin = _drawn(parts[whole])
    layers = [inner for inner, module in twin.named_modules() if is_linear(module)]
    best: Attention | None = None
    for layer in reversed(layers):
        module = twin.get_submodule(layer)
        width = widths(module)[0]
        tried = {count for count in counts if count > 1 and width % count == 0}
        tried |= {width // size for size in sizes if width % size == 0 and width > size}
        for count in sorted(tried, reverse=True):
            labels = _labels(twin, layer, count, call)
            if labels is None:
                continue
            prefix = f"{whole}." if whole else ""
            units = 1 + max(int(label.max()) for _, label in labels.values())
            heads = max((c for c in tried if c % units == 0), default=units)
            named = {prefix + inner: label for inner, label in labels.items()}
            if not any(within(inner, name) for inner in named):
                continue  # the heads of a neighbour
            made = Attention(name, whole, prefix + layer, heads, named, units, call)
            if best is None or units > best.units:
                best = made
        if best is not None:
            return best
    return None


@torch.no_grad()
def _drawn(module: nn.Module) -> nn.Module:
    """Return a copy in float64 whose weights are random, so that no gradient is zero by chance."""
    twin = evaluating(whole_copy(module).double())
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        scale = max(parameter.shape[-1], 1) ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(draw * scale + (parameter.ndim == 1))
        parameter.requires_grad_(True)
    return twin


def _labels(
    twin: nn.Module, layer: str, count: int, call: Example
) -> dict[str, tuple[int, Tensor]] | None:
    """Return which unit owns each slice of each parameter, where `count` parts tell units apart."""
    output = twin.get_submodule(layer)
    width = widths(output)[0]
    size = width // count
    blocks = [torch.arange(size) + part * size for part in range(count)]
    probes = [blocks[0], blocks[-1]]
    try:
        ends = [_touched(twin, output, block, call) for block in probes]
        if not _told_apart(*ends):
            return None
        if size > 1:  # both halves of a head need the same queries; those of an MLP share nothing
            halves = [_touched(twin, output, half, call) for half in blocks[0].chunk(2)]
            if not _share(halves[0], halves[1], ends[1]):
                return None
        touched = [ends[0], *(_touched(twin, output, b, call) for b in blocks[1:-1]), ends[1]]
    except Exception:  # it does not run alone, or not in this dtype
        return None
    own = _own_axes(touched)
    numbers = _joined(touched, own)
    units = max(numbers) + 1
    labels: dict[str, tuple[int, Tensor]] = {}
    for name, axis in own:
        label = torch.full_like(touched[0][name, axis], -1, dtype=torch.long)
        for number, seen in zip(numbers, touched, strict=True):
            label[seen[name, axis]] = number
        labels.setdefault(name, (axis, label))
    _add_biases(twin, labels)
    columns = torch.tensor(numbers).repeat_interleave(size)
    weight = next(n for n, p in twin.named_parameters() if p is output.weight)
    labels[weight] = (input_axis(output), columns)
    sizes = {tuple(label.bincount(minlength=units).tolist()) for _, label in _counted(labels)}
    even = all(len(set(counts)) == 1 for counts in sizes)
    return labels if units > 1 and even else None


def _counted(labels: dict[str, tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    for axis, label in labels.values():
        yield axis, label[label >= 0]


def _touched(
    twin: nn.Module, output: nn.Module, columns: Tensor, call: Example
) -> dict[tuple[str, int], Tensor]:
    """Return which slices of each axis of each parameter some of the output's columns need."""
    weight, axis = output.get_parameter("weight"), input_axis(output)
    kept = weight.detach().clone()
    with torch.no_grad():
        gone = torch.ones(weight.shape[axis], dtype=torch.bool)
        gone[columns] = False
        weight.movedim(axis, 0)[gone] = 0.0
    try:
        with torch.enable_grad(), slow_attention():
            results = tensors_of(call.run(twin)).values()
            total = torch.zeros((), dtype=torch.float64)
            for place, result in enumerate(r for r in results if r.requires_grad):
                if place:  # attention maps beside the result
                    break
                generator = torch.Generator().manual_seed(1)
                total = total + (result * torch.randn(result.shape, generator=generator)).sum()
            named = dict(twin.named_parameters())
            grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    found = {}
    for (name, parameter), grad in zip(named.items(), grads, strict=True):
        if parameter is weight:
            continue
        seen = torch.zeros(parameter.shape, dtype=torch.bool) if grad is None else grad != 0
        for own in range(parameter.ndim):
            others = [each for each in range(parameter.ndim) if each != own]
            found[name, own] = seen.amax(dim=others) if others else seen
    return found


Touched = dict[tuple[str, int], Tensor]


def _told_apart(first: Touched, last: Touched) -> bool:
    return any(
        first[key].any() and last[key].any() and not (first[key] & last[key]).any() for key in first
    )


def _share(one: Touched, two: Touched, other: Touched) -> bool:
    """Say whether two sets of columns need a slice that a third one does not."""
    return any((one[key] & two[key] & ~other[key]).any() for key in one)


def _own_axes(touched: list[Touched]) -> list[tuple[str, int]]:
    """Return the axes of parameters along which heads own different slices, all of them owned."""
    found = []
    for key in touched[0]:
        rows = torch.stack([seen[key] for seen in touched])
        differ = bool((rows != rows[0]).any())
        if differ and bool(rows.any(dim=0).all()) and bool(rows.any(dim=1).all()):
            found.append(key)
    return found


def _joined(touched: list[Touched], own: list[tuple[str, int]]) -> list[int]:
    """Return the unit of each part: parts that need a slice in common are one unit."""
    numbers = list(range(len(touched)))
    for key in own:
        for place, seen in enumerate(touched):
            for before in range(place):
                if numbers[before] != numbers[place] and (seen[key] & touched[before][key]).any():
                    old, new = numbers[place], numbers[before]
                    numbers = [new if number == old else number for number in numbers]
    order = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
    return [order[number] for number in numbers]


def _add_biases(twin: nn.Module, labels: dict[str, tuple[int, Tensor]]) -> None:
    """Give the bias of a layer the units of its rows: a key's bias changes no result."""
    for name, parameter in twin.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if "bias" not in leaf or parameter.ndim != 1:
            continue
        twin_name = leaf.replace("bias", "weight")
        weight = f"{owner}.{twin_name}" if owner else twin_name
        if weight in labels and len(labels[weight][1]) == len(parameter):
            rows = 1 - input_axis(twin.get_submodule(owner))
            if labels[weight][0] == rows:
                labels[name] = (0, labels[weight][1])
