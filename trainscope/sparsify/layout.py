"""Which channels of a network are the same channels: groups, and how a value holds them.

A *group* is a set of channels that one layer makes. Values that are added or multiplied have the
same channels, so their groups are joined. A *layout* says which groups a value's channels are, in
order: a concatenation has several segments, and flattening repeats each channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Group:
    """Channels that must go together.

    Attributes:
        size: How many.
        layers: The convolutions or linear layers that make them, in forward order.
        linear: True where linear layers alone make them.
        residual: True where they meet a residual addition.
        output: True where they are the network's outputs.
        chunks: Parts that must lose equally many channels (grouped convolutions), else 1.
        blocked: Why they cannot be cut, None where they can.
    """

    size: int
    layers: list[str] = field(default_factory=list)
    linear: bool = False
    residual: bool = False
    output: bool = False
    chunks: int = 1
    blocked: str | None = None


@dataclass(frozen=True)
class Segment:
    """One group in a layout: its number, and how often each channel is repeated in a row."""

    group: int
    repeat: int = 1


class NamedWidth(int):
    """A width that remembers which attribute of the network holds it."""

    name: str


@dataclass(frozen=True)
class Layout:
    """The channels of a value: they lie on `axis`, segment after segment."""

    axis: int
    segments: tuple[Segment, ...]

    def on(self, axis: int) -> Layout:
        """Return the same channels on another axis."""
        return replace(self, axis=axis)

    def repeated(self, times: int) -> Layout:
        """Return each channel repeated `times` in a row."""
        longer = tuple(Segment(s.group, s.repeat * times) for s in self.segments)
        return replace(self, segments=longer)


class Groups:
    """All groups of a network, joined as they are found to be the same (union-find)."""

    def __init__(self) -> None:
        self._groups: list[Group] = []
        self._parents: list[int] = []
        self._halves: dict[int, tuple[int, int]] = {}  # the parts of what was divided, by root
        self._splits: list[list[Layout]] = []
        self.widths: list[tuple[str, Layout]] = []  # what each `NamedWidth` was found to count

    def new(self, size: int, **fields: object) -> int:
        """Add a group and return its number."""
        self._groups.append(Group(size, **fields))  # type: ignore[arg-type]
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, number: int) -> int:
        """Return the number that stands for a group and all joined to it."""
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def __getitem__(self, number: int) -> Group:
        """Return the group that a number belongs to."""
        return self._groups[self.root(number)]

    def roots(self) -> list[int]:
        """Return one number for each group, in the order they were made."""
        numbers = range(len(self._parents))
        return [n for n in numbers if self.root(n) == n and n not in self._halves]

    def segments(self, layout: Layout) -> list[Segment]:
        """Return the segments of a layout by root, the parts of what was divided since."""
        found = []
        for segment in layout.segments:
            root = self.root(segment.group)
            if root in self._halves:
                inner = tuple(Segment(half, segment.repeat) for half in self._halves[root])
                found.extend(self.segments(Layout(layout.axis, inner)))
            else:
                found.append(Segment(root, segment.repeat))
        return found

    def of(self, layout: Layout | None) -> list[Group]:
        """Return the groups of a layout; none of none."""
        if layout is None:
            return []
        return [self._groups[segment.group] for segment in self.segments(layout)]

    def width(self, layout: Layout) -> int:
        """Return how many channels a layout has."""
        return sum(self._groups[s.group].size * s.repeat for s in self.segments(layout))

    def split(self, layout: Layout, sizes: Sequence[int]) -> list[Layout] | None:
        """Return the layouts of consecutive parts of a layout; groups are divided where they end.

        None where a part would end between repetitions of one channel.
        """
        queue, parts = self.segments(layout), []
        for size in sizes:
            taken, need = [], size
            while need and queue:
                segment = queue.pop(0)
                width = self._groups[segment.group].size * segment.repeat
                if width > need and segment.repeat > 1:
                    return None
                if width > need:
                    first, second = self._divide(segment.group, need)
                    queue.insert(0, Segment(second))
                    segment, width = Segment(first), need
                taken.append(segment)
                need -= width
            parts.append(Layout(layout.axis, tuple(taken)))
        self._splits.append(parts)
        return parts

    def settle(self) -> None:
        """Block the parts of a split that are not cut alike: code that splits evenly needs that."""
        for parts in self._splits:
            found = [self.segments(part) for part in parts]
            if any(segments != found[0] for segments in found):
                for part in parts:
                    self.block(part, "its outputs are split into parts that are used differently")

    def _divide(self, root: int, at: int) -> tuple[int, int]:
        whole = self._groups[root]
        why = whole.blocked
        if whole.chunks > 1:
            why = why or "the outputs of a grouped convolution are split"
        halves = []
        for size in (at, whole.size - at):
            part = replace(whole, size=size, layers=list(whole.layers), chunks=1, blocked=why)
            self._groups.append(part)
            self._parents.append(len(self._parents))
            halves.append(len(self._parents) - 1)
        self._halves[root] = (halves[0], halves[1])
        return self._halves[root]

    def block(self, layout: Layout | None, why: str) -> None:
        """Mark every group of a layout as one that cannot be cut; the first reason stays."""
        for group in self.of(layout):
            group.blocked = group.blocked or why

    def join(self, left: Layout, right: Layout, why: str) -> None:
        """Make two layouts of one width the same channels; block both where they do not match."""
        if self._shape(left) != self._shape(right):
            for layout in (left, right):
                self.block(layout, f"{why} joins channels that are laid out differently")
            return
        for one, two in zip(self.segments(left), self.segments(right), strict=True):
            self._unite(one.group, two.group)

    def indices(self, layout: Layout, removed: dict[int, Tensor]) -> Tensor:
        """Return which channels of a layout go, sorted, given those of each group (by root)."""
        found, offset = [torch.empty(0, dtype=torch.long)], 0
        for segment in self.segments(layout):
            root = segment.group
            if root in removed:
                starts = removed[root].unsqueeze(1) * segment.repeat + offset
                found.append((starts + torch.arange(segment.repeat)).flatten())
            offset += self._groups[root].size * segment.repeat
        return torch.cat(found)

    def _shape(self, layout: Layout) -> list[tuple[int, int]]:
        return [(self._groups[s.group].size, s.repeat) for s in self.segments(layout)]

    def _unite(self, left: int, right: int) -> None:
        first, second = sorted((self.root(left), self.root(right)))
        if first == second:
            return
        kept, gone = self._groups[first], self._groups[second]
        self._parents[second] = first
        kept.layers.extend(name for name in gone.layers if name not in kept.layers)
        kept.linear = kept.linear and gone.linear
        kept.residual = kept.residual or gone.residual
        kept.output = kept.output or gone.output
        kept.chunks = math.lcm(kept.chunks, gone.chunks)
        kept.blocked = kept.blocked or gone.blocked
