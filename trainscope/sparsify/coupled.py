"""The scope `all`: every coupled group, found by Torch-Pruning's dependency graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from trainscope.errors import ActionError, first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs, as_example
from trainscope.networks.masks import masks_of, set_masks
from trainscope.networks.weights import is_adapter
from trainscope.sparsify.candidate import ADAPTED, OUTPUT, Candidate, Removed, some
from trainscope.sparsify.coupled_swaps import swaps_of
from trainscope.sparsify.dependencies import (
    Dependencies,
    TooSlowError,
    by_dependencies,
    is_maker,
)
from trainscope.sparsify.interchange import Interchange, Swap, evenly, torn
from trainscope.sparsify.statistics import Subject

MIXED = "its channels are no equals: where two change places, the outputs change"
TORN = "its channels are divided, as into heads, in a way that fewer of them do not fit"
SCALED = (
    "attentions divide their scores by the root of the size of a head, which is smaller now: they "
    "look more sharply than those of the dense network with these channels at zero"
)
PADDED = "padding with zeros along axis 1, which may be the channels', couples them at a shift"

Wary = Mapping[type[nn.Module], bool]
"""Modules whose own code counts channels, by class: whether all groups that cut anything in one are
left alone, or those alone that have all of their layers in some."""

Settled = dict[str, int | None]
"""In how many parts each group's channels are cut; None where they are no equals."""

_RECORDED = (_ConvNd, nn.Linear, _BatchNorm, _InstanceNorm)


class GivesWayError(ActionError):
    """The scope `all` fails where `inner` may work.

    Attributes:
        why: A clause on what failed.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class CoupledCutter:
    """Cuts the channels that Torch-Pruning finds coupled; ranking and rounding are ours.

    The coupled filters of several layers are ranked as one filter that has the weights of all of
    them (convolutions and linear layers; depthwise ones, norms and consumers only follow).
    """

    noun, unit = "coupled group", "channels"

    def __init__(
        self,
        network: nn.Module,
        graph: Dependencies,
        used: list[str],
        masks: Mapping[str, Tensor],
        wary: Wary = MappingProxyType({}),
    ):
        self._network, self._graph, self._used = network, graph, used
        self._masks, self._wary = masks, wary
        self._names = {module: name for name, module in network.named_modules()}
        groups, failed = graph.groups((_ConvNd, nn.Linear))
        self.spared: dict[str, str] = {
            self._names[module]: why for module, why in failed.items() if is_maker(module)
        }
        found: list[Candidate] = []
        self._groups: dict[str, Any] = {}
        for group in groups:
            layers = self._makers(group)
            why = self._why_not(group, layers)
            if why is None:
                found.append(self._candidate(group, layers))
                self._groups[found[-1].name] = group
            else:
                self.spared.update(dict.fromkeys(layers, why))
        order = {name: place for place, name in enumerate(self._names.values())}
        self.candidates = tuple(sorted(found, key=lambda candidate: order[candidate.name]))
        self.notes: tuple[str, ...] = ()

    @property
    def untold(self) -> Mapping[str, str]:
        """Why layers are spared that one might not expect."""
        return {name: why for name, why in self.spared.items() if self._is_told(name, why)}

    def settle(self, inputs: Inputs, known: Settled) -> None:
        """Leave alone what is not interchangeable, and cut heads and the like evenly.

        Args:
            inputs: The shape of one input, or an example of a call.
            known: What was settled of this network before, and where this is kept.
        """
        chunks = {candidate.name: candidate.chunks for candidate in self.candidates}
        counts = {candidate.name: candidate.count for candidate in self.candidates}
        new = {name: parts for name, parts in chunks.items() if name not in known}
        if new:
            trial = Interchange(self._network, inputs)
            known.update(evenly(trial, new, counts, self._swaps) if trial.possible else new)
        settled = {name: known[name] for name in chunks}
        heads = {n: parts for n, parts in settled.items() if parts not in (None, chunks[n])}
        torn_apart, rescaled = self._torn(inputs, heads, counts) if heads else (set(), False)
        found = []
        for candidate in self.candidates:
            parts = settled[candidate.name]
            if parts is None:
                self.spared.update(dict.fromkeys(candidate.layers, MIXED))
            elif parts != candidate.chunks and candidate.count in torn_apart:
                self.spared.update(dict.fromkeys(candidate.layers, TORN))
            else:
                found.append(replace(candidate, chunks=parts))
        self.candidates = tuple(found)
        if rescaled and any(candidate.name in heads for candidate in found):
            self.notes += (SCALED,)

    def _torn(
        self, inputs: Inputs, heads: Mapping[str, int], counts: Mapping[str, int]
    ) -> tuple[set[int], bool]:
        """Return what `torn` does of a copy in which half of all channels are gone.

        Args:
            inputs: The shape of one input, or an example of a call.
            heads: In how many parts candidates are cut that are divided.
            counts: How many channels each candidate has.
        """
        divided = {counts[name]: parts for name, parts in heads.items()}
        narrow = whole_copy(self._network)
        try:
            cutter = by_dependencies(narrow, inputs, partial(CoupledCutter, masks={}))
            removed = {}
            for candidate in cutter.candidates:
                # Code that divides one value by the width of another needs as many of both.
                alike = divided.get(candidate.count, candidate.chunks)
                parts = heads.get(candidate.name, alike)
                places = torch.arange(candidate.count).view(parts, -1)
                removed[candidate.name] = places[:, -(-places.shape[1] // 2) :].flatten()
            cutter.cut({name: places for name, places in removed.items() if len(places)})
            return torn(self._network, narrow, inputs, set(divided))
        except Exception:  # with fewer it does not run at all
            return set(divided), False

    def _swaps(self, name: str, pairs: Sequence[tuple[int, int]]) -> list[Swap] | None:
        named = {id(part): name for name, part in self._network.named_parameters()}
        named |= {id(part): name for part, name in self._names.items()}
        return swaps_of(self._groups[name], pairs, named, self._is_output)

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""
        sizes = {m: m.head_dim for m in self._names if isinstance(m, nn.MultiheadAttention)}
        _mark(self._network, self._masks)
        left: dict[str, list[int]] = {}
        gone: dict[str, list[int]] = {}
        for name, indices in removed.items():
            group = self._graph.group(self._network.get_submodule(name), indices.tolist())
            for dep, places in group:
                inner = dep.target.module
                if not self._is_output(dep) or not isinstance(inner, _RECORDED):
                    continue
                layer, width = self._names[inner], _width(inner)
                # A norm after a concatenation is cut more than once: count in its first indices.
                kept = left.setdefault(layer, list(range(width)))
                places = set(places)
                gone.setdefault(layer, []).extend(kept[place] for place in places)
                left[layer] = [index for place, index in enumerate(kept) if place not in places]
            self._graph.cut(group)
        _mask_marked(self._network, self._masks)
        if narrower := [m for m, size in sizes.items() if _as_sharp(m, size)]:
            names = [self._names[module] for module in narrower]
            self.notes += (f"queries scaled as their heads are narrower: {some(names)}",)
        return {name: tuple(sorted(indices)) for name, indices in gone.items()}

    def _is_told(self, name: str, why: str) -> bool:
        """Say whether a person must be told why a layer is spared."""
        return why != OUTPUT

    def _is_output(self, dep: Any) -> bool:
        return self._graph.is_output(dep)

    def _makers(self, group: Any) -> list[str]:
        """Name the layers that make the channels of a group, the root first."""
        made = [
            self._names[dep.target.module]
            for dep, _ in group
            if self._is_output(dep) and is_maker(dep.target.module)
        ]
        return list(dict.fromkeys(made)) or [self._names[group[0].dep.target.module]]

    def _why_not(self, group: Any, layers: list[str]) -> str | None:
        size = len(group[0].idxs)
        for dep, places in group:
            node, module = dep.target, dep.target.module
            width = self._graph.width(dep)
            if width is not None and max(places, default=0) >= width:
                return "Torch-Pruning couples channels to it that are not there"
            if self._is_output(dep) and (not node.outputs or type(module).__name__ == "_OutputOp"):
                return OUTPUT
            if _pads_channels(node.grad_fn):
                return PADDED
            parts = _parts(module)
            if parts > 1 and (len(places) != size or size % parts or size // parts < 2):
                return f"the {parts} parts of a {type(module).__name__} cannot be cut evenly"
        if any(map(is_adapter, layers)):
            return ADAPTED
        if not set(layers).issubset(self._used):
            return "used in training only"
        for kind, anything in self._wary.items():
            inside = all(self._is_inside(layer, kind) for layer in layers)
            if inside or (anything and any(self._is_inside(n, kind) for n in self._all(group))):
                return f"the code of {kind.__name__} does not run with fewer of them"
        if not is_maker(self._network.get_submodule(layers[0])):
            return "no convolution or linear layer of its own makes its channels"
        return None

    def _all(self, group: Any) -> set[str]:
        """Name all modules and parameters that a group cuts."""
        named = {id(part): name for name, part in self._network.named_parameters()}
        named |= {id(part): name for part, name in self._names.items()}
        cut = (id(dep.target.module) for dep, _ in group)
        return {named[part] for part in cut if part in named}

    def _is_inside(self, part: str, kind: type[nn.Module]) -> bool:
        """Say whether a layer or a parameter is part of a module of a class."""
        words = part.split(".")
        around = {".".join(words[:count]) for count in range(1, len(words) + 1)}
        return any(type(m) is kind and name in around for m, name in self._names.items())

    def _candidate(self, group: Any, layers: list[str]) -> Candidate:
        size = len(group[0].idxs)
        parts: list[tuple[str, nn.Module, Tensor]] = []
        weights: dict[str, Tensor] = {}
        scales: list[Tensor] = []
        chunks = 1
        for item in group:
            module = item.dep.target.module
            chunks = math.lcm(chunks, _parts(module))
            if not self._is_output(item.dep) or len(item.idxs) != size:
                continue
            # Row i belongs to channel i of the group's first layer.
            rows = torch.tensor(item.idxs)[torch.argsort(torch.tensor(item.root_idxs))]
            if is_maker(module):
                parameter = f"{self._names[module]}.weight"
                weights[parameter] = module.weight.detach()
                parts.append((parameter, module, rows))
            elif isinstance(module, _BatchNorm) and module.affine:
                scales.append(module.weight.detach()[rows.to(module.weight.device)])

        def gather(values: Mapping[str, Tensor]) -> Tensor:
            found = [by_outputs(module, values[name])[rows] for name, module, rows in parts]
            return torch.cat(found, dim=1)

        parameters = tuple(parameter for parameter, _, _ in parts)
        subject = Subject(layers[0], gather(weights), tuple(scales), parameters, gather=gather)
        return Candidate(subject, tuple(layers), size, chunks, aligned=True)


def coupled(
    network: nn.Module,
    inputs: Inputs,
    wary: Wary = MappingProxyType({}),
    settled: Settled | None = None,
) -> CoupledCutter:
    """Find every coupled group of a network.

    Args:
        network: Cut in place by the result's `cut`. Torch-Pruning needs gradients for every
            parameter and leaves eval mode behind, so this sets both; the caller puts them back.
        inputs: The shape of one input, or an example of a call.
        wary: Modules whose layers are left alone.
        settled: What was settled of the same network in another try.

    Raises:
        TooSlowError: Torch-Pruning takes too long; the network is as it was but for these.
        GivesWayError: It cannot follow the network.
        ActionError: Nothing can be pruned, or nothing that is in question here.
    """
    if as_example(inputs).count is not None:
        raise ActionError(
            f"{type(network).__name__} takes lists, whose graph Torch-Pruning does not come to the "
            "end of: use --scope inner or the structure unstructured"
        )
    masks = masks_of(network)
    if any(name.endswith("_orig") for name in masks):
        raise ActionError(
            "scope all cannot cut what torch.nn.utils.prune computes at every call; use "
            "--scope inner, or save the network's state dict and open that"
        )
    try:
        cutter = by_dependencies(network, inputs, partial(CoupledCutter, masks=masks, wary=wary))
        cutter.settle(inputs, {} if settled is None else settled)
    except TooSlowError:
        set_masks(network, masks)
        raise
    except Exception as error:
        why = (
            f"Torch-Pruning cannot follow {type(network).__name__} "
            f"({type(error).__name__}: {first_line(error)})"
        )
        raise GivesWayError(
            f"{why}; use --scope inner or the structure unstructured", why
        ) from error
    if not cutter.candidates:
        why = "; ".join(f"{name}: {why}" for name, why in list(cutter.untold.items())[:2])
        raise ActionError(
            "nothing can be pruned: no channels are coupled that are not the outputs"
            + (f" ({why})" if why else "")
            + "; use --scope inner or the structure unstructured"
        )
    return cutter


@torch.no_grad()
def _mark(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Mark masked weights by NaN, so that a cut of the weights cuts the masks along."""
    for name, mask in masks.items():
        network.get_parameter(name)[~mask] = torch.nan


@torch.no_grad()
def _mask_marked(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Make masks of the marks that are left."""
    left = {name: ~network.get_parameter(name).isnan() for name in masks}
    for name, mask in left.items():
        network.get_parameter(name)[~mask] = 0.0
    set_masks(network, left)


def by_outputs(module: nn.Module, values: Tensor) -> Tensor:
    """Return values of a layer's weight as [outputs, weights of one]."""
    turned = getattr(module, "transposed", False)
    return (values.transpose(0, 1) if turned else values).flatten(1)


def _pads_channels(function: object) -> bool:
    """Say whether an autograd function pads axis 1, as the shortcuts of CIFAR ResNets do.

    Torch-Pruning takes it for an elementwise operation, and the cut would move channels.
    """
    pads = getattr(function, "_saved_pad", None)
    # Pairs for each axis from the last one; of four axes the third pair is the channels'.
    return pads is not None and len(pads) >= 6 and any(pads[4:6])


def _parts(module: object) -> int:
    """Return in how many parts a module's channels must be cut evenly."""
    if isinstance(module, _ConvNd) and module.groups < module.in_channels:
        return int(module.groups)
    if isinstance(module, nn.GroupNorm):
        return int(module.num_groups)
    return int(module.num_heads) if isinstance(module, nn.MultiheadAttention) else 1


@torch.no_grad()
def _as_sharp(attention: nn.MultiheadAttention, size: int) -> bool:
    """Let an attention look as sharply as when its heads had another size; say whether they had.

    torch's own divides its scores by the root of the size that heads have now. In the network with
    zeros they are divided by that of the size before.
    """
    if attention.head_dim == size:
        return False
    sharper = (attention.head_dim / size) ** 0.5
    packed, width = attention.in_proj_weight, attention.embed_dim
    queries = attention.q_proj_weight if packed is None else packed[:width]
    queries.mul_(sharper)
    if attention.in_proj_bias is not None:
        attention.in_proj_bias[:width].mul_(sharper)
    return True


def _width(module: nn.Module) -> int:
    for attribute in ("out_channels", "out_features", "num_features"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    raise TypeError(type(module).__name__)
