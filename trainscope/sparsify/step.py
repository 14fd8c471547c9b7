"""One operation of a traced network, as the rules of `operations` and `layers` see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from trainscope.sparsify.layout import Groups, Layout


@dataclass(frozen=True)
class Step:
    """One node of a `torch.fx` graph while the graph is walked.

    Attributes:
        node: The node.
        args: Its arguments, as values on the meta device.
        kwargs: Its keyword arguments, likewise.
        value: The tensor that it returned.
        groups: The groups found so far.
        layouts: The layouts of the nodes before it; a node without one is not in it.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Tensor
    groups: Groups
    layouts: Mapping[fx.Node, Layout]

    @property
    def layout(self) -> Layout | None:
        """The layout of the first argument."""
        return self.layout_of(self.argument(0, "input", raw=True))

    @property
    def source(self) -> Any:
        """The value of the first argument."""
        return self.argument(0, "input")

    def layout_of(self, raw: object) -> Layout | None:
        """Return the layout of an argument as it stands in the graph."""
        return self.layouts.get(raw) if isinstance(raw, fx.Node) else None

    def argument(self, place: int, name: str, default: Any = None, *, raw: bool = False) -> Any:
        """Return an argument by place or name: its value, or as it stands in the graph."""
        args = self.node.args if raw else self.args
        kwargs = self.node.kwargs if raw else self.kwargs
        return args[place] if place < len(args) else kwargs.get(name, default)

    def sizes(self, *, raw: bool = False) -> list[Any]:
        """Return the arguments after the first, as one list, however they were given."""
        rest = list((self.node.args if raw else self.args)[1:])
        if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
            return list(rest[0])
        named = (self.node.kwargs if raw else self.kwargs).values()
        return rest or [
            size for sizes in named if isinstance(sizes, (list, tuple)) for size in sizes
        ]
