"""The space that the vectors of a curvature matrix live in: who holds which part of them.

Krylov methods handle vectors as flat local tensors and need little else: inner products, which are
partial where others hold the rest, and random vectors, which must be one and the same vector
however it is cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 2**16
"""Single precision loses digits over millions of numbers: so many are added in it, the sums of
these blocks in double."""
_DRAWN = 2**20
"""Random numbers that are drawn at once."""


class Space(Protocol):
    """A vector space whose vectors are held in one or several parts."""

    @property
    def size(self) -> int:
        """Return the number of dimensions, all parts counted."""
        ...

    @property
    def local(self) -> int:
        """Return those of the part held here: the length of a tensor."""
        ...

    def total(self, partial: Tensor) -> Tensor:
        """Return sums over the parts, of any shape, from those of the part held here."""
        ...

    def random(self, generator: torch.Generator) -> Tensor:
        """Return the local part of a standard normal vector, float64, [local]."""
        ...

    def signs(self, generator: torch.Generator) -> Tensor:
        """Return the local part of a vector of random signs, float64, [local]."""
        ...


@dataclass(frozen=True)
class Dense:
    """A space whose vectors are held whole."""

    size: int
    device: torch.device

    @property
    def local(self) -> int:
        """Return the length of a tensor."""
        return self.size

    def total(self, partial: Tensor) -> Tensor:
        """Return the sums as they are."""
        return partial

    def random(self, generator: torch.Generator) -> Tensor:
        """Return a standard normal vector, float64, [size]."""
        return torch.cat(list(drawn_normal(self.size, generator))).to(self.device)

    def signs(self, generator: torch.Generator) -> Tensor:
        """Return a vector of random signs, float64, [size]."""
        return torch.cat(list(drawn_signs(self.size, generator))).to(self.device)


def drawn_normal(size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield a standard normal vector in blocks, so that nobody has to hold it whole."""
    for start in range(0, size, _DRAWN):
        count = min(_DRAWN, size - start)
        yield torch.randn(count, generator=generator, dtype=torch.float64)


def drawn_signs(size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield a vector of random signs in blocks, float64."""
    for start in range(0, size, _DRAWN):
        count = min(_DRAWN, size - start)
        yield torch.randint(0, 2, (count,), generator=generator).double() * 2 - 1


def partial_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of two local parts of one dtype, float64, []."""
    if a.dtype == torch.float64:
        return torch.dot(a, b)
    blocks = zip(torch.split(a, BLOCK), torch.split(b, BLOCK), strict=True)
    return torch.stack([torch.dot(x, y) for x, y in blocks]).double().sum()


def partial_parts(rows: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products of rows [k, n] with a vector [n] of one dtype, float64, [k]."""
    if vector.dtype == torch.float64:
        return rows @ vector
    blocks = zip(torch.split(rows, BLOCK, 1), torch.split(vector, BLOCK), strict=True)
    return torch.stack([x @ y for x, y in blocks]).double().sum(0)


def length_of(space: Space, vector: Tensor) -> float:
    """Return the 2-norm of a vector from its local part."""
    return math.sqrt(float(space.total(partial_dot(vector, vector))))
