"""Cuts inner filters where a graph shows which channels every value holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from trainscope.errors import ActionError
from trainscope.networks.linear import widths
from trainscope.networks.weights import outputs_first, weight_leaf
from trainscope.sparsify.candidate import (
    EXPECTED,
    FIRST,
    HEAD,
    OTHER_KIND,
    OUTPUT,
    RESIDUAL,
    Candidate,
    Removed,
)
from trainscope.sparsify.cut import keep_depthwise, keep_inputs, keep_outputs
from trainscope.sparsify.layers import Channels
from trainscope.sparsify.layout import Group, Layout
from trainscope.sparsify.statistics import Subject


class InnerCutter:
    """Cuts inner convolutions or, in a network that has none, the hidden units of its MLPs.

    Args:
        network: Cut in place.
        channels: Where its channels are.
        spare_first: Leave its first convolution alone, which is the image's.
    """

    def __init__(self, network: nn.Module, channels: Channels, *, spare_first: bool = True):
        self._network, self._channels, self._spare_first = network, channels, spare_first
        groups = channels.groups
        self._roots = [root for root in groups.roots() if groups[root].layers]
        order = {name: place for place, name in enumerate(channels.makers)}
        for root in self._roots:  # the first convolution, if there is one, is the layer ranked
            groups[root].layers.sort(key=lambda name: (not self._is_convolution(name), order[name]))
        makers = channels.makers if spare_first else ()
        self._first = next((n for n in makers if self._is_convolution(n)), None)
        self._read_by_layers = {
            segment.group
            for layout in channels.readers.values()
            for segment in groups.segments(layout)
        }
        chosen = self._choose(linear=False)
        self.noun, self.unit = "inner convolution", "filters"
        if not chosen:
            chosen = self._choose(linear=True)
            self.noun, self.unit = "MLP", "hidden units"
        self._of = {groups[root].layers[0]: root for root in chosen}
        self.candidates = tuple(self._candidate(root) for root in chosen)
        self.spared = {
            name: self._why_not(groups[root], name) or OTHER_KIND
            for root in self._roots
            if root not in chosen
            for name in groups[root].layers
        }
        self.untold = self._untold(linear=self.unit != "filters")
        self.notes: tuple[str, ...] = ()

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""
        channels, groups = self._channels, self._channels.groups
        gone = {self._of[name]: indices for name, indices in removed.items()}
        outputs: dict[str, Tensor] = {}
        for name in channels.makers:
            made = groups.indices(channels.made_by(name), gone)
            if len(made):
                outputs[name] = made
                module = self._network.get_submodule(name)
                # Inputs before outputs: a grouped convolution's rows are told by its outputs.
                self._cut_inputs(name, module, gone)
                keep_outputs(module, _kept(_outputs_of(module), outputs[name]))
            elif name in channels.readers:
                self._cut_inputs(name, self._network.get_submodule(name), gone)
        for name, layout in channels.along.items():
            indices = self._cut_along(name, layout, gone)
            if len(indices):
                outputs[name] = indices
        return {name: tuple(indices.tolist()) for name, indices in outputs.items()}

    def on(self, network: nn.Module) -> InnerCutter:
        """Return a cutter of a copy of the network, without following it anew."""
        return InnerCutter(network, self._channels, spare_first=self._spare_first)

    def candidate(self, layer: str) -> Candidate:
        """Return the candidate that a layer is of.

        Raises:
            ActionError: It is of none; the message says why, and which layers are.
        """
        found = next((each for each in self.candidates if layer in each.layers), None)
        if found is not None:
            return found
        names = [each.name for each in self.candidates]
        can = f"choose from {', '.join(names)}" if names else "no layer of this network can be cut"
        if layer not in dict(self._network.named_modules()):
            raise ActionError(f"no layer is named '{layer}'; {can}")
        why = self.spared.get(layer, "it makes no filters")
        raise ActionError(f"the filters of {layer} cannot be chosen ({why}); {can}")

    def reads(self, name: str) -> dict[str, tuple[Layout, Tensor]]:
        """Return, by the layer that reads a candidate's channels, how, and where each filter is.

        Args:
            name: The candidate's.

        Returns:
            The layout of the layer's input, and the channels of it that each filter is, [n, k].
        """
        root, groups = self._of[name], self._channels.groups
        size = groups[root].size
        found = {}
        for reader, layout in self._channels.readers.items():
            if any(segment.group == root for segment in groups.segments(layout)):
                each = [groups.indices(layout, {root: torch.tensor([k])}) for k in range(size)]
                found[reader] = (layout, torch.stack(each))
        return found

    def width(self, layout: Layout) -> int:
        """Return how many channels a layout has."""
        return self._channels.groups.width(layout)

    def _cut_inputs(self, name: str, module: nn.Module, gone: dict[int, Tensor]) -> None:
        layout = self._channels.readers.get(name)
        if layout is None:
            return
        indices = self._channels.groups.indices(layout, gone)
        if len(indices):
            keep_inputs(module, _kept(self._channels.groups.width(layout), indices))

    def _cut_along(self, name: str, layout: Layout, gone: dict[int, Tensor]) -> Tensor:
        groups, module = self._channels.groups, self._network.get_submodule(name)
        indices, width = groups.indices(layout, gone), groups.width(layout)
        if not len(indices):
            return indices
        if not isinstance(module, _ConvNd):
            keep_outputs(module, _kept(width, indices))
            return indices
        times = module.out_channels // module.in_channels
        longer = groups.indices(layout.repeated(times), gone)
        keep_depthwise(module, _kept(width * times, longer), _kept(width, indices))
        return longer

    def _choose(self, *, linear: bool) -> list[int]:
        groups = self._channels.groups
        chosen = [
            root
            for root in self._roots
            if groups[root].linear == linear
            and self._why_not(groups[root]) is None
            # Hidden units are those between two linear layers.
            and (not linear or root in self._read_by_layers)
        ]
        readers = {root: self._readers(root) for root in chosen} if linear else {}
        if any(group.residual or group.blocked for read in readers.values() for group in read):
            # A network of residual blocks: a hidden layer of its classifier is no MLP of a block.
            for root, read in readers.items():
                if all(group.output for group in read):
                    groups[root].blocked = HEAD
                    chosen.remove(root)
        return chosen

    def _readers(self, root: int) -> list[Group]:
        """Return the groups that the layers make which read a group."""
        channels = self._channels
        return [
            group
            for name, layout in channels.readers.items()
            if any(segment.group == root for segment in channels.groups.segments(layout))
            for group in channels.groups.of(channels.made_by(name))
        ]

    def _why_not(self, group: Group, name: str | None = None) -> str | None:
        """Return why a group, or one layer of it, is not in scope; None where it is."""
        if self._first in ([name] if name else group.layers):
            return FIRST
        if group.residual:
            return RESIDUAL
        if group.output:
            return OUTPUT
        if group.blocked:
            return group.blocked
        if group.chunks > 1 and (group.size % group.chunks or group.size == group.chunks):
            return f"the {group.chunks} groups of a grouped convolution cannot be cut evenly"
        if self._first in group.layers:
            return f"its outputs go with those of {self._first}, the first convolution"
        return None

    def _candidate(self, root: int) -> Candidate:
        """Describe a group; its first layer is the one that is ranked."""
        group = self._channels.groups[root]
        name = group.layers[0]
        # Gated units are ranked by all their rows; of convolutions the first is ranked.
        ranked = group.layers if group.linear else group.layers[:1]
        modules = {layer: self._network.get_submodule(layer) for layer in ranked}
        names = {layer: f"{layer}.{weight_leaf(module)}" for layer, module in modules.items()}

        def gather(values: Mapping[str, Tensor]) -> Tensor:
            rows = [p for each in ranked for p in self._rows(each, root, values[names[each]])]
            return torch.cat(rows, dim=1)

        weights = {names[layer]: cast(Tensor, modules[layer].weight).detach() for layer in ranked}
        scales = []
        for along, layout in self._channels.along.items():
            norm = self._network.get_submodule(along)
            reads = [(s.group, s.repeat) for s in self._channels.groups.segments(layout)]
            if isinstance(norm, _BatchNorm) and norm.affine and reads == [(root, 1)]:
                scales.append(norm.weight.detach())
        subject = Subject(
            name, gather(weights), tuple(scales[:1]), tuple(names.values()), gather=gather
        )
        return Candidate(subject, tuple(group.layers), group.size, group.chunks)

    def _rows(self, layer: str, root: int, values: Tensor) -> list[Tensor]:
        """Return values [n, k] of the outputs of a layer that are a group, part by part."""
        module, groups = self._network.get_submodule(layer), self._channels.groups
        weight = outputs_first(module, values)
        found, start = [], 0
        for segment in groups.segments(self._channels.made_by(layer)):
            size = groups[segment.group].size
            if segment.group == root:
                found.append(weight[start : start + size])
            start += size
        return found

    def _is_convolution(self, name: str) -> bool:
        return isinstance(self._network.get_submodule(name), _ConvNd)

    def _untold(self, *, linear: bool) -> dict[str, str]:
        """Name the layers of a kind that are left out for a reason one might not expect."""
        groups, makers = self._channels.groups, self._channels.makers
        return {
            name: why
            for name, why in self.spared.items()
            if groups[makers[name]].linear == linear and why not in EXPECTED
        }


def _kept(width: int, gone: Tensor) -> Tensor:
    mask = torch.ones(width, dtype=torch.bool)
    mask[gone] = False
    return torch.nonzero(mask).flatten()


def _outputs_of(module: nn.Module) -> int:
    return module.out_channels if isinstance(module, _ConvNd) else widths(module)[1]
