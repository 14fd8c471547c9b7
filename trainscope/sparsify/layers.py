"""What modules do with channels: which make them, which read them, which go along."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from trainscope.networks.linear import is_linear, widths
from trainscope.sparsify.graph_step import GraphStep
from trainscope.sparsify.layout import Groups, Layout, Segment
from trainscope.sparsify.operations import elementwise, flattened, halved, spatial

_ALONG = (_BatchNorm, _InstanceNorm, nn.PReLU)

_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign),
    *(nn.LogSigmoid, nn.Threshold, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Identity),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
)

_SPATIAL = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample),
    *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d),
)


def makes(module: object) -> bool:
    """Say whether a module is a layer that makes new channels."""
    return isinstance(module, _ConvNd) or is_linear(module)


def is_leaf(module: object) -> bool:
    """Say whether the trace takes a module as one step, whoever wrote its class."""
    return makes(module) or isinstance(module, _ALONG)


@dataclass
class Channels:
    """Where a network's channels are made, read and cut along.

    Attributes:
        groups: The groups of channels.
        makers: The group each convolution or linear layer makes, by name, in forward order.
        readers: The layout each of them reads.
        along: The layout of each batch norm, PReLU and depthwise convolution.
    """

    groups: Groups = field(default_factory=Groups)
    makers: dict[str, int] = field(default_factory=dict)
    readers: dict[str, Layout] = field(default_factory=dict)
    along: dict[str, Layout] = field(default_factory=dict)

    def layout(self, step: GraphStep, name: str, module: nn.Module) -> Layout | None:
        """Return the layout of a module's output, None where nothing is known of it."""
        if isinstance(module, _ConvNd):
            if module.groups == module.in_channels > 1 and not module.transposed:
                return self._depthwise(step, name, module)
            return self._convolution(step, name, module)
        if is_linear(module):
            return self._linear(step, name, module)
        if isinstance(module, _ALONG):
            return self._along(step, name, module)
        if isinstance(module, nn.GLU):
            return halved(step, module.dim)
        if isinstance(module, nn.Flatten):
            return flattened(step, module.start_dim, module.end_dim)
        if isinstance(module, _ELEMENTWISE):
            return elementwise(step)
        return spatial(step) if isinstance(module, _SPATIAL) else None

    def made_by(self, name: str) -> Layout:
        """Return the channels that a layer makes, as a layout."""
        return Layout(0, (Segment(self.makers[name]),))

    def block(self, name: str, why: str) -> None:
        """Mark the channels that a layer makes as ones that cannot be cut."""
        self.groups.block(self.made_by(name), why)

    def _made(self, name: str, size: int, axis: int, *, linear: bool, chunks: int = 1) -> Layout:
        if name not in self.makers:  # a layer that is called twice makes one group
            number = self.groups.new(size, layers=[name], linear=linear, chunks=chunks)
            self.makers[name] = number
        return Layout(axis, (Segment(self.makers[name]),))

    def _read(self, name: str, layout: Layout, table: dict[str, Layout]) -> None:
        if name in table:
            self.groups.join(table[name], layout, name)
        else:
            table[name] = layout

    def _convolution(self, step: GraphStep, name: str, module: _ConvNd) -> Layout | None:
        layout = step.layout
        if layout is not None:
            segments = self.groups.segments(layout)
            single = len(segments) == 1 and segments[0].repeat == 1
            if layout.axis != 1 or (module.groups > 1 and (module.transposed or not single)):
                self.groups.block(
                    layout, f"its outputs feed the grouped convolution {name} unevenly"
                )
            elif module.groups > 1:
                group = self.groups[segments[0].group]
                group.chunks = math.lcm(group.chunks, module.groups)
            self._read(name, layout, self.readers)
        made = self._made(name, module.out_channels, 1, linear=False, chunks=module.groups)
        if module.transposed and module.groups > 1:
            self.groups.block(made, "a grouped transposed convolution is not cut")
        return made

    def _depthwise(self, step: GraphStep, name: str, module: _ConvNd) -> Layout | None:
        layout = step.layout
        if layout is None or layout.axis != 1:
            return None
        self._read(name, layout, self.along)
        return layout.repeated(module.out_channels // module.in_channels)

    def _linear(self, step: GraphStep, name: str, module: nn.Module) -> Layout | None:
        layout = step.layout
        if layout is not None:
            if layout.axis != step.source.ndim - 1:
                self.groups.block(layout, f"{name} works across positions of its outputs")
            else:
                self._read(name, layout, self.readers)
        return self._made(name, widths(module)[1], step.value.ndim - 1, linear=True)

    def _along(self, step: GraphStep, name: str, module: nn.Module) -> Layout | None:
        layout = step.layout
        if layout is None or layout.axis != 1:
            return None
        if not (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            self._read(name, layout, self.along)
        return layout
