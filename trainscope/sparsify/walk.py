"""Follows a network's channels through the steps of its graph, whoever made the graph."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, fx, nn

from trainscope.networks.example import tensors_of
from trainscope.sparsify.graph_step import GraphStep
from trainscope.sparsify.layers import Channels, is_leaf, makes
from trainscope.sparsify.layout import Layout
from trainscope.sparsify.operations import FUNCTIONS, SPLITS, split

_OPENED = (
    *(nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder),
    *(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
"""Torch's own modules that are looked into: their layers are what is cut."""


class Failed:
    """The value of an operation that could not be run."""


class Walk:
    """What is known of a graph's channels so far.

    Attributes:
        channels: Where they are made, read and cut along.
        layouts: How the value of each node holds them.
        driven: The nodes that depend on the network's input.
        called: The layers that were called.
        origins: The calls of layers that made the channels of each node.
        parts: The layouts of the parts that a node splits a tensor into.
    """

    def __init__(self) -> None:
        self.channels = Channels()
        self.layouts: dict[fx.Node, Layout] = {}
        self.driven: set[fx.Node] = set()
        self.called: set[nn.Module] = set()
        self.origins: dict[fx.Node, frozenset[fx.Node]] = {}
        self.parts: dict[fx.Node, list[Layout]] = {}

    def take(self, step: GraphStep, name: str = "", module: nn.Module | None = None) -> None:
        """Follow the channels through a function, or a call of the module of that name."""
        if not self.driven.isdisjoint(step.reads):
            self.driven.add(step.node)
        made = makes(module)
        before = [self.origins[inner] for inner in step.reads if inner in self.origins]
        self.origins[step.node] = frozenset({step.node} if made else set().union(*before))
        if module is None and self._take_parts(step):
            return
        layout = None
        if isinstance(step.value, Tensor):
            if module is not None:
                self.called.add(module)
                layout = self.channels.layout(step, name, module)
                if step.node not in self.driven:
                    step.groups.block(layout, "the network's input does not reach it")
            elif any(inner in self.layouts for inner in step.reads):
                rule = FUNCTIONS.get(step.function)
                layout = None if rule is None else rule(step)
        elif not _holds_tensors(step.value):
            return  # a shape, a number: nothing that carries channels
        elif module is not None:
            self.called.add(module)
        if layout is not None:
            self.layouts[step.node] = layout
            return
        what = f"the operation {step.function}" if module is None else _kind(module)
        for inner in step.reads:
            step.groups.block(self.layouts.get(inner), f"its outputs feed {what}")

    def _take_parts(self, step: GraphStep) -> bool:
        """Follow a split, or the choice of one of its parts; say whether it was either."""
        if step.function in SPLITS:
            parts = split(step)
            if parts is not None:
                self.parts[step.node] = parts
            return parts is not None
        source, index = step.argument(0, "input", raw=True), step.argument(1, "index")
        if step.function != "getitem" or source not in self.parts or not isinstance(index, int):
            return False
        self.layouts[step.node] = self.parts[source][index]
        return True

    def outputs(self, nodes: Iterable[fx.Node]) -> None:
        """Mark the channels of the network's outputs."""
        for inner in nodes:
            for layout in (self.layouts.get(inner), *self.parts.get(inner, ())):
                for group in self.channels.groups.of(layout):
                    group.output = True


class LeafTracer(fx.Tracer):
    """Takes torch's own layers, and subclasses of those that carry channels, as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether a module is one step; see torch.fx."""
        if isinstance(m, _OPENED):
            return False
        leaf = is_leaf(m) or isinstance(m, nn.MultiheadAttention)
        return leaf or super().is_leaf_module(m, module_qualified_name)


def _kind(module: nn.Module) -> str:
    kind = type(module).__name__
    return f"{'an' if kind[0] in 'AEIO' else 'a'} {kind}"


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Failed) or bool(tensors_of(value))
