"""How parameters that are spread over processes are put together, and what has to be added up.

The derivative of gathering is to add up over the processes and to keep the local part, and the
other way round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function

from trainscope.probes.processes.ranks import Ranks


@dataclass(frozen=True)
class SpreadParameter:
    """How one parameter is spread.

    Attributes:
        ranks: The processes.
        shape: Of the whole.
        stride: Likewise.
        mesh: Of the processes; None where each holds the whole.
        placements: What each axis of the mesh holds; empty likewise.
    """

    ranks: Ranks
    shape: torch.Size
    stride: tuple[int, ...]
    mesh: Any = None
    placements: tuple[Any, ...] = ()

    @property
    def holders(self) -> int:
        """Return how many processes hold each entry."""
        if self.mesh is None:
            return self.ranks.count
        sizes = zip(self.placements, self.mesh.shape, strict=True)
        return math.prod(size for placement, size in sizes if placement.is_replicate())

    @property
    def size(self) -> int:
        """Return the number of entries of the whole."""
        return self.shape.numel()

    def whole(self, local: Tensor) -> Tensor:
        """Return the whole of a tensor shaped like the parameter, from its local parts."""
        if self.mesh is None:
            return local
        return self._moved("gather", local, self.placements, _replicated(self.mesh), whole=False)

    def added(self, whole: Tensor) -> Tensor:
        """Return the local part of the sum over processes."""
        if self.mesh is None:
            return self.ranks.sum(whole)
        return self._moved("add up", whole, _partial(self.mesh), self.placements, whole=True)

    def cut(self, whole: Tensor) -> Tensor:
        """Return the local part of what all processes hold whole; nothing is sent."""
        if self.mesh is None:
            return whole
        from torch.distributed.tensor import DTensor

        held = _replicated(self.mesh)
        spread = DTensor.from_local(whole.detach(), self.mesh, held, run_check=False)
        return spread.redistribute(placements=self.placements).to_local().contiguous()

    def _moved(self, what: str, values: Tensor, held: Any, wanted: Any, *, whole: bool) -> Tensor:
        from torch.distributed.tensor import DTensor

        shape: dict[str, Any] = {} if whole else {"shape": self.shape, "stride": self.stride}

        def make() -> Tensor:
            given = values.detach().contiguous()
            spread = DTensor.from_local(given, self.mesh, held, run_check=False, **shape)
            return spread.redistribute(placements=wanted).to_local().clone()

        with torch.no_grad():
            return self.ranks.exchange(f"{what} {tuple(self.shape)} {values.dtype}", make)

    def __deepcopy__(self, _: object) -> SpreadParameter:
        return self  # process groups are no values


def _replicated(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    return (Replicate(),) * int(mesh.ndim)


def _partial(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Partial

    return (Partial(),) * int(mesh.ndim)


class Bucket:
    """Parameters that are gathered, and added up, at once: a message costs more than its bytes.

    Args:
        parts: How each is spread.
        shapes: Of the local parts of each, in every process.
    """

    def __init__(
        self, parts: Sequence[SpreadParameter], shapes: Sequence[Sequence[torch.Size]]
    ) -> None:
        self.parts, self.ranks = list(parts), parts[0].ranks
        self.axes = [_axis(part) for part in parts]
        self.simple = [i for i, axis in enumerate(self.axes) if axis is not None]
        self.shapes = [[shapes[i][rank] for i in self.simple] for rank in range(self.ranks.count)]
        self.longest = max(sum(math.prod(each) for each in own) for own in self.shapes)

    def whole(self, local: Sequence[Tensor]) -> list[Tensor]:
        """Return the whole of tensors shaped like the parameters, from their local parts."""
        found: list[Tensor] = [
            value if axis is not None else part.whole(value)
            for part, axis, value in zip(self.parts, self.axes, local, strict=True)
        ]
        if not self.simple:
            return found
        mine = self._flat([local[i] for i in self.simple])
        there = [torch.empty_like(mine) for _ in self.shapes]
        self.ranks.exchange(
            f"gather {self.longest} {mine.dtype}", lambda: distributed.all_gather(there, mine)
        )
        pieces = [self._shaped(row, shapes) for row, shapes in zip(there, self.shapes, strict=True)]
        for place, i in enumerate(self.simple):
            axis = cast("int", self.axes[i])
            found[i] = torch.cat([own[place] for own in pieces], axis)
        return found

    def added(self, whole: Sequence[Tensor]) -> list[Tensor]:
        """Return the local parts of the sums over processes."""
        found: list[Tensor] = [
            value if axis is not None else part.added(value)
            for part, axis, value in zip(self.parts, self.axes, whole, strict=True)
        ]
        if not self.simple:
            return found
        cut: list[tuple[Tensor, ...]] = []
        for place, i in enumerate(self.simple):
            axis = cast("int", self.axes[i])
            sizes = [own[place][axis] for own in self.shapes]
            cut.append(torch.split(whole[i], sizes, axis))
        rows = [self._flat([pieces[rank] for pieces in cut]) for rank in range(len(self.shapes))]
        mine = rows[0].new_empty(self.longest)
        self.ranks.exchange(
            f"add up {self.longest} {mine.dtype}",
            lambda: distributed.reduce_scatter(mine, rows),
        )
        for i, value in zip(self.simple, self._shaped(mine, self._own), strict=True):
            found[i] = value
        return found

    @property
    def _own(self) -> list[torch.Size]:
        return self.shapes[self.ranks.index]

    def _flat(self, values: Sequence[Tensor]) -> Tensor:
        """Return values in a row, as long as the longest of any process."""
        flat = torch.cat([value.detach().reshape(-1) for value in values])
        return nn.functional.pad(flat, (0, self.longest - len(flat)))

    def _shaped(self, flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in shapes]
        pieces = torch.split(flat[: sum(sizes)], sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def __deepcopy__(self, _: object) -> Bucket:
        return self  # process groups are no values


def _axis(part: SpreadParameter) -> int | None:
    """Return the axis along which all processes in order hold slices; None for any other way."""
    if part.mesh is None or part.mesh.ndim != 1 or part.ranks.count == 1:
        return None
    (placement,) = part.placements
    in_order = part.mesh.mesh.tolist() == list(range(part.ranks.count))
    if not in_order or not placement.is_shard() or is_strided(placement):
        return None
    return int(placement.dim) % max(1, len(part.shape))


class Gathered(Function):
    """From local parts to the wholes, in every process."""

    @staticmethod
    def forward(ctx: Any, bucket: Bucket, *local: Tensor) -> tuple[Tensor, ...]:
        """Return the wholes."""
        ctx.bucket = bucket
        return tuple(each.view_as(each) for each in bucket.whole(local))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the local parts of the sums."""
        return None, *_Added.apply(ctx.bucket, *grads)


class _Added(Function):
    """From what every process has, to the local parts of the sums."""

    @staticmethod
    def forward(ctx: Any, bucket: Bucket, *whole: Tensor) -> tuple[Tensor, ...]:
        ctx.bucket = bucket
        return tuple(each.view_as(each) for each in bucket.added(whole))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *Gathered.apply(ctx.bucket, *grads)


def edges(node: Any) -> list[Any]:
    """Return the nodes of a graph that a node got its inputs from, past what gathers parameters."""
    found = []
    for parent, index in node.next_functions:
        gathers = type(parent).__name__ == "GatheredBackward"
        found.append(parent.next_functions[index][0] if gathers else parent)
    return found


def is_strided(placement: object) -> bool:
    """Tell whether a placement is of an axis that two axes of the mesh cut."""
    return type(placement).__name__ == "_StridedShard"
