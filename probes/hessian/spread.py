"""The space of vectors over parameters that are spread over processes, each holding a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainscope.probes.hessian.spaces import Dense, Space, drawn_normal, drawn_signs
from trainscope.probes.subject.parameters import Measured

Draw = Callable[[int, torch.Generator], Iterator[Tensor]]


def space_of(measured: Measured, device: torch.device) -> Space:
    """Return the space of vectors over the surviving weights."""
    if measured.parts:
        return Spread(measured, device)
    return Dense(measured.survivors, device)


@dataclass(frozen=True)
class Spread:
    """A space of vectors as `Measured.flatten` makes them of local parts.

    Attributes:
        measured: The parameters.
        device: Where vectors are.
    """

    measured: Measured
    device: torch.device

    @cached_property
    def size(self) -> int:
        """Return the number of dimensions."""
        return self.measured.survivors

    @cached_property
    def local(self) -> int:
        """Return the number of entries that are held here."""
        return sum(self.measured.held)

    def total(self, partial: Tensor) -> Tensor:
        """Return sums over the processes."""
        return self.measured.ranks.sum(partial)

    def random(self, generator: torch.Generator) -> Tensor:
        """Return this process's part of the vector that `Dense` draws, float64, [local]."""
        return self._drawn(drawn_normal, generator)

    def signs(self, generator: torch.Generator) -> Tensor:
        """Return this process's part of the vector that `Dense` draws, float64, [local]."""
        return self._drawn(drawn_signs, generator)

    def _drawn(self, draw: Draw, generator: torch.Generator) -> Tensor:
        """Draw parameter by parameter, and keep the local parts: no vector is ever held whole."""
        held, stream = self.measured, _Stream(draw(self.size, generator))
        found = []
        for part, mask, count in zip(held.parts, held.masks, held.counts, strict=True):
            values = stream.take(count)
            if mask is None:
                whole = values.view(part.shape)
            else:
                survives = part.whole(mask.to(torch.uint8)).bool().cpu()
                whole = values.new_zeros(part.shape)
                whole[survives] = values
            found.append(part.cut(whole.to(self.device)))
        return held.flatten(found)


class _Stream:
    """Takes from blocks of numbers as many at a time as are wanted."""

    def __init__(self, blocks: Iterator[Tensor]) -> None:
        self._blocks, self._left = blocks, torch.empty(0, dtype=torch.float64)

    def take(self, count: int) -> Tensor:
        pieces = [self._left]
        while sum(map(len, pieces)) < count:
            pieces.append(next(self._blocks))
        found = torch.cat(pieces)
        self._left = found[count:].clone()
        return found[:count]
