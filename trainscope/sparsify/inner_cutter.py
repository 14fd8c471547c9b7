"""Cuts inner filters where a graph shows which channels every value holds."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from trainscope.sparsify.candidate import (
    EXPECTED,
    FIRST,
    OTHER_KIND,
    OUTPUT,
    RESIDUAL,
    Candidate,
    Removed,
    left_alone,
    shares_of,
)
from trainscope.sparsify.criteria import Subject
from trainscope.sparsify.cut import keep_depthwise, keep_inputs, keep_outputs
from trainscope.sparsify.layers import Channels
from trainscope.sparsify.layout import Group, Layout


class InnerCutter:
    """Cuts inner convolutions or, in a network that has none, the hidden units of its MLPs.

    Args:
        network: Cut in place.
        channels: Where its channels are.
        spare_first: Leave its first convolution alone, which is the image's.
    """

    def __init__(self, network: nn.Module, channels: Channels, *, spare_first: bool = True):
        self._network, self._channels = network, channels
        groups = channels.groups
        self._roots = [root for root in groups.roots() if groups[root].layers]
        order = {name: place for place, name in enumerate(channels.makers)}
        for root in self._roots:  # the first convolution, if there is one, is the layer ranked
            groups[root].layers.sort(key=lambda name: (not self._is_convolution(name), order[name]))
        makers = channels.makers if spare_first else ()
        self._first = next((n for n in makers if self._is_convolution(n)), None)
        self._read_by_layers = {
            groups.root(segment.group)
            for layout in channels.readers.values()
            for segment in layout.segments
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
        self.notes = self._notes(linear=self.unit != "filters")

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""
        channels, groups = self._channels, self._channels.groups
        gone = {self._of[name]: indices for name, indices in removed.items()}
        outputs: dict[str, Tensor] = {}
        for name, number in channels.makers.items():
            if groups.root(number) in gone:
                outputs[name] = gone[groups.root(number)]
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
        return [
            root
            for root in self._roots
            if groups[root].linear == linear
            and self._why_not(groups[root]) is None
            # Hidden units are those between two linear layers.
            and (not linear or root in self._read_by_layers)
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
        module = self._network.get_submodule(name)
        weight: Tensor = cast(Tensor, module.weight).detach()
        if isinstance(module, _ConvNd) and module.transposed:
            weight = weight.transpose(0, 1)
        scales = []
        for along, layout in self._channels.along.items():
            norm = self._network.get_submodule(along)
            reads = [(self._channels.groups.root(s.group), s.repeat) for s in layout.segments]
            if isinstance(norm, _BatchNorm) and norm.affine and reads == [(root, 1)]:
                scales.append(norm.weight.detach())
        subject = Subject(name, weight.flatten(1), tuple(scales[:1]), (f"{name}.weight",))
        return Candidate(subject, tuple(group.layers), group.size, group.chunks)

    def _is_convolution(self, name: str) -> bool:
        return isinstance(self._network.get_submodule(name), _ConvNd)

    def _notes(self, *, linear: bool) -> tuple[str, ...]:
        """Name the layers of a kind that are left out for a reason one might not expect."""
        groups, makers = self._channels.groups, self._channels.makers
        untold = {
            name: why
            for name, why in self.spared.items()
            if groups[makers[name]].linear == linear and why not in EXPECTED
        }
        return left_alone(untold, shares_of(self._network))


def _kept(width: int, gone: Tensor) -> Tensor:
    mask = torch.ones(width, dtype=torch.bool)
    mask[gone] = False
    return torch.nonzero(mask).flatten()


def _outputs_of(module: nn.Module) -> int:
    return int(module.out_channels if isinstance(module, _ConvNd) else module.out_features)  # type: ignore[arg-type]
