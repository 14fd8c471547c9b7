"""One operation of a traced network, as the rules of `operations` and `layers` see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from trainscope.sparsify.layout import Groups, Layout


@dataclass(frozen=True)
class GraphStep:
    """One operation of a graph, or one call of a layer, while the graph is walked.

    Attributes:
        node: The node that gives its value.
        reads: The nodes whose values it gets.
        raw_args: Its arguments as they stand in the graph, nodes among them.
        raw_kwargs: Its keyword arguments, likewise.
        args: Its arguments, as values without numbers.
        kwargs: Its keyword arguments, likewise.
        value: What it returned, for the rules a tensor.
        groups: The groups found so far.
        layouts: The layouts of the nodes before it; a node without one is not in it.
        literal: True where a number among the arguments is one in the network's code. In a graph
            that was made for one shape it may be any size that the code computed.
        origins: The calls of layers that made the channels of each node before it.
    """

    node: fx.Node
    reads: list[fx.Node]
    raw_args: tuple[Any, ...]
    raw_kwargs: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any
    groups: Groups
    layouts: Mapping[fx.Node, Layout]
    literal: bool = True
    origins: Mapping[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)

    @property
    def layout(self) -> Layout | None:
        """The layout of the first argument."""
        return self.layout_of(self.argument(0, "input", raw=True))

    @property
    def source(self) -> Any:
        """The value of the first argument."""
        return self.argument(0, "input")

    @property
    def function(self) -> str:
        """The name of a function, a method or an ATen operator, without the mark of in place."""
        target: Any = self.node.target
        if isinstance(target, str):
            name = target
        elif hasattr(target, "_schema"):  # an ATen operator, like aten::add.Tensor
            name = target._schema.name.rpartition("::")[2]
        else:
            name = getattr(target, "__name__", str(target))
        return name.rstrip("_")

    def layout_of(self, raw: object) -> Layout | None:
        """Return the layout of an argument as it stands in the graph."""
        return self.layouts.get(raw) if isinstance(raw, fx.Node) else None

    def argument(self, place: int, name: str, default: Any = None, *, raw: bool = False) -> Any:
        """Return an argument by place or name: its value, or as it stands in the graph."""
        args = self.raw_args if raw else self.args
        kwargs = self.raw_kwargs if raw else self.kwargs
        return args[place] if place < len(args) else kwargs.get(name, default)

    def sizes(self, *, raw: bool = False) -> list[Any]:
        """Return the arguments after the first, as one list, however they were given."""
        rest = list((self.raw_args if raw else self.args)[1:])
        if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
            return list(rest[0])
        named = (self.raw_kwargs if raw else self.kwargs).values()
        return rest or [
            size for sizes in named if isinstance(sizes, (list, tuple)) for size in sizes
        ]
