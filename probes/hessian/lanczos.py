"""Lanczos with full reorthogonalisation: the ends of a symmetric matrix's spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainscope.probes.hessian.products import Product
from trainscope.probes.hessian.spaces import Dense, Space, length_of, partial_dot, partial_parts

Values = NDArray[np.float64]
SMALL = 2**20
"""Vectors of no more numbers are float64."""
CHUNK = 8
"""Vectors that are allocated, and multiplied with, at once."""
AGAIN = 0.5**0.5
"""A vector is orthogonalised again where less than this share of it is left."""


@dataclass(frozen=True)
class Ritz:
    """Approximate eigenvalues, ascending, and what bounds their distance from true ones.

    Attributes:
        values: [m].
        residuals: |A u - value * u| of each one's unit vector u, [m]. Some eigenvalue is no
            farther from the value; not always the one that the value seems to stand for.
        weights: The squared parts of the starting vector along the vectors, [m]: the weights of a
            quadrature for it.
    """

    values: Values
    residuals: Values
    weights: Values


class Lanczos:
    """A Krylov space of a symmetric matrix that grows by one product a step.

    Vectors of a small matrix are float64, those of a large one have the network's dtype (float32 at
    least), in which its products are made: orthogonalised again wherever a pass leaves less than
    `AGAIN` of a vector, they hold the eigenvalues as well as float64 copies do, in a tenth of the
    time. Where the space is exhausted (the starting vector had no part in the rest), `grow` goes on
    from a fresh random vector orthogonal to it.

    Attributes:
        alphas: The diagonal of the tridiagonal matrix T.
        betas: What couples each vector to the one after it; 0 where the space was exhausted.
        skew: The largest |<u, Hv> - <v, Hu>| over pairs of basis vectors: for a symmetric matrix
            no more than rounding. It comes free, with the reorthogonalisation.
    """

    def __init__(
        self,
        product: Product,
        start: Tensor,
        generator: torch.Generator,
        dtype: torch.dtype,
        space: Space | None = None,
    ) -> None:
        """Start from a nonzero vector.

        Args:
            product: The matrix.
            start: The first vector, its local part, of any length but zero.
            generator: Draws fresh vectors.
            dtype: The network's. Products are exact to its rounding.
            space: Where the vectors live; by default they are held whole.
        """
        self.product, self.generator = product, generator
        self.space: Space = space or Dense(len(start), start.device)
        self.rounding = 4 * torch.finfo(dtype).eps
        self.dtype = vector_dtype(self.space.size, dtype)
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.skew = 0.0
        self._chunks: list[Tensor] = []
        self._like = start
        first = start.double()
        self._slot(0).copy_(first / length_of(self.space, first))
        self._ready = True  # the next vector is in its slot

    @property
    def steps(self) -> int:
        """Return the number of vectors in the basis."""
        return len(self.alphas)

    @property
    def size(self) -> int:
        """Return the number of dimensions."""
        return self.space.size

    @property
    def basis(self) -> Tensor:
        """Return a copy of the basis, [steps, local], orthonormal."""
        rows = [rows for rows, _ in self._rows()]
        return torch.cat(rows) if rows else self._like.new_empty(0, self.space.local)

    @property
    def exhausted(self) -> bool:
        """Tell whether the basis spans an invariant subspace: its Ritz values are eigenvalues."""
        return bool(self.betas) and self.betas[-1] == 0

    @property
    def full(self) -> bool:
        """Tell whether the basis spans the whole space."""
        return self.steps == self.size

    def grow(self) -> None:
        """Add one vector to the basis: one product. What interrupts that adds none."""
        try:
            self._grow()
        except BaseException:
            del self.alphas[len(self.betas) :]
            raise

    def _grow(self) -> None:
        current = self._slot(self.steps)
        if not self._ready:
            self._draw(current)
        rest = self.product(current).to(self.dtype)
        if rest.data_ptr() == current.data_ptr():
            rest = rest.clone()
        scale = length_of(self.space, rest)
        alpha = self.dot(rest, current)
        rest.add_(current, alpha=-alpha)
        if self.betas and self.betas[-1]:
            rest.add_(self._slot(self.steps - 1), alpha=-self.betas[-1])
        self.alphas.append(alpha)
        parts = self._parts(rest)
        self.skew = max(self.skew, float(parts.abs().max()))
        beta = self._orthogonalise(rest, parts)
        # Below rounding there is no new direction left, only noise.
        if self.full or beta <= self.rounding * max(scale, self._scale()):
            beta = 0.0
        self.betas.append(beta)
        self._ready = beta > 0
        if beta:
            torch.div(rest, beta, out=self._slot(self.steps))

    @property
    def symmetric(self) -> bool:
        """Tell whether the products so far can be those of a symmetric matrix."""
        return self.skew <= max(1e-4, 8 * self.rounding) * self._scale()

    @property
    def values(self) -> Values:
        """Return the Ritz values of all parts, ascending, [steps]."""
        return np.sort(np.concatenate([part.values for part in self.parts()]))

    def parts(self, steps: int | None = None) -> list[Ritz]:
        """Return the Ritz values after so many steps (default all), by what they started from.

        There is one part unless the space was exhausted: each fresh vector begins another, whose
        weights are by that vector. All but the last are eigenvalues.
        """
        steps = self.steps if steps is None else steps
        begins = [0, *(i + 1 for i, beta in enumerate(self.betas[: steps - 1]) if beta == 0)]
        found = []
        for begin, end in zip(begins, [*begins[1:], steps], strict=True):
            off = self.betas[begin : end - 1]
            matrix = np.diag(self.alphas[begin:end]) + np.diag(off, 1) + np.diag(off, -1)
            values, vectors = np.linalg.eigh(matrix)
            found.append(Ritz(values, np.abs(self.betas[end - 1] * vectors[-1]), vectors[0] ** 2))
        return found

    def top(self) -> Tensor:
        """Return the unit vector of the largest Ritz value, [local], float64."""
        off = self.betas[:-1]
        matrix = np.diag(self.alphas) + np.diag(off, 1) + np.diag(off, -1)
        weights = torch.from_numpy(np.linalg.eigh(matrix)[1][:, -1].copy())
        vector = torch.zeros(self.space.local, dtype=torch.float64, device=self._like.device)
        for rows, places in self._rows():
            vector += weights[places].to(rows) @ rows
        unit: Tensor = vector / length_of(self.space, vector)
        return unit

    def outside(self, vector: Tensor) -> Tensor:
        """Return what a vector has outside the space, its local part, [local]."""
        vector = vector.to(self.dtype, copy=True)
        for _ in range(2):
            self._subtract(vector, self._parts(vector))
        return vector

    def dot(self, a: Tensor, b: Tensor) -> float:
        """Return the inner product of two vectors from their local parts."""
        return float(self.space.total(partial_dot(a, b.to(a.dtype))))

    def _scale(self) -> float:
        """Return a lower estimate of the matrix's norm."""
        return max(max(map(abs, self.alphas)), max(self.betas, default=0.0))

    def _orthogonalise(self, rest: Tensor, parts: Tensor) -> float:
        """Take a vector's parts along the basis out of it; return its length after that.

        Where little is left of it, what rounding put in is no longer small: once more. Twice is
        enough (Parlett 1998), and once mostly (Daniel, Gragg, Kaufman, Stewart 1976).
        """
        before = length_of(self.space, rest)
        self._subtract(rest, parts)
        after = length_of(self.space, rest)
        if after >= AGAIN * before:
            return after
        self._subtract(rest, self._parts(rest))
        return length_of(self.space, rest)

    def _parts(self, vector: Tensor) -> Tensor:
        """Return a vector's parts along the basis, [steps], float64."""
        partial = torch.cat([partial_parts(rows, vector) for rows, _ in self._rows()])
        return self.space.total(partial)

    def _subtract(self, vector: Tensor, parts: Tensor) -> Tensor:
        """Take parts along the basis out of a vector, in place."""
        for rows, places in self._rows():
            vector.addmv_(rows.T, parts[places].to(vector.dtype), alpha=-1)
        return vector

    def _draw(self, slot: Tensor) -> None:
        """Put a random unit vector orthogonal to the basis in its place."""
        vector = self.outside(self.space.random(self.generator))
        torch.div(vector, length_of(self.space, vector), out=slot)

    def _slot(self, place: int) -> Tensor:
        """Return the row of a vector, made where it is the first of its chunk."""
        if place // CHUNK == len(self._chunks):
            rows = min(CHUNK, self.size - place)
            self._chunks.append(self._like.new_empty(rows, self.space.local, dtype=self.dtype))
        return self._chunks[place // CHUNK][place % CHUNK]

    def _rows(self) -> Iterator[tuple[Tensor, slice]]:
        """Yield the basis by chunks, and the places of their vectors."""
        for number, chunk in enumerate(self._chunks):
            places = slice(number * CHUNK, min((number + 1) * CHUNK, self.steps))
            if places.start < places.stop:
                yield chunk[: places.stop - places.start], places


def vector_dtype(size: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of vectors of a size: float64 up to 8 MB a vector, else the network's."""
    return torch.float64 if size <= SMALL else torch.promote_types(dtype, torch.float32)
