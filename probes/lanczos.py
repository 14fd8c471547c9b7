"""Lanczos with full reorthogonalisation: the ends of a symmetric matrix's spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainscope.probes.products import Product

Values = NDArray[np.float64]
_SMALL, _BLOCK = 2**20, 2**16


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
    least), in which its products are made: twice orthogonalised, they hold the eigenvalues as well
    as float64 copies do, in a tenth of the time. Where the space is exhausted (the starting vector
    had no part in the rest), `grow` goes on from a fresh random vector orthogonal to it.

    Attributes:
        alphas: The diagonal of the tridiagonal matrix T.
        betas: What couples each vector to the one after it; 0 where the space was exhausted.
        skew: The largest |<u, Hv> - <v, Hu>| over pairs of basis vectors: for a symmetric matrix
            no more than rounding. It comes free, with the reorthogonalisation.
    """

    def __init__(
        self, product: Product, start: Tensor, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        """Start from a nonzero vector [P].

        Args:
            product: The matrix.
            start: The first vector, of any length but zero.
            generator: Draws fresh vectors.
            dtype: The network's. Products are exact to its rounding.
        """
        self.product, self.generator = product, generator
        self.rounding = 4 * torch.finfo(dtype).eps
        start = start.double()
        kept = vector_dtype(len(start), dtype)
        self.next: Tensor | None = (start / start.norm()).to(kept)
        self._store = start.new_empty(8, len(start), dtype=kept)
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.skew = 0.0

    @property
    def steps(self) -> int:
        """Return the number of vectors in the basis."""
        return len(self.alphas)

    @property
    def size(self) -> int:
        """Return the length of a vector."""
        return self._store.shape[1]

    @property
    def basis(self) -> Tensor:
        """Return the basis, [steps, P], orthonormal."""
        return self._store[: self.steps]

    @property
    def exhausted(self) -> bool:
        """Tell whether the basis spans an invariant subspace: its Ritz values are eigenvalues."""
        return bool(self.betas) and self.betas[-1] == 0

    @property
    def full(self) -> bool:
        """Tell whether the basis spans the whole space."""
        return self.steps == self.size

    def grow(self) -> None:
        """Add one vector to the basis: one product."""
        current = self._fresh() if self.next is None else self.next
        if self.steps == len(self._store):
            self._store = torch.cat([self._store, torch.empty_like(self._store)])
        image = self.product(current).to(current.dtype)
        alpha = _dot(image, current)
        rest = image - alpha * current
        if self.betas and self.betas[-1]:
            rest -= self.betas[-1] * self.basis[-1]
        self._store[self.steps] = current
        self.alphas.append(alpha)
        parts = self._parts(rest)
        self.skew = max(self.skew, float(parts.abs().max()))
        rest = self.orthogonal(self._without(rest, parts))  # twice is enough (Parlett 1998)
        beta = length_of(rest)
        # Below rounding there is no new direction left, only noise.
        if self.full or beta <= self.rounding * max(length_of(image), self._scale()):
            beta = 0.0
        self.betas.append(beta)
        self.next = rest / beta if beta else None

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
        """Return the unit vector of the largest Ritz value, [P], float64."""
        off = self.betas[:-1]
        matrix = np.diag(self.alphas) + np.diag(off, 1) + np.diag(off, -1)
        parts = torch.from_numpy(np.linalg.eigh(matrix)[1][:, -1].copy()).to(self.basis)
        vector = (parts @ self.basis).double()
        unit: Tensor = vector / vector.norm()
        return unit

    def _scale(self) -> float:
        """Return a lower estimate of the matrix's norm."""
        return max(max(map(abs, self.alphas)), max(self.betas, default=0.0))

    def orthogonal(self, vector: Tensor) -> Tensor:
        """Return a vector less its parts along the basis."""
        return self._without(vector, self._parts(vector))

    def _parts(self, vector: Tensor) -> Tensor:
        """Return a vector's parts along the basis, [steps].

        Single precision loses four digits over ten million numbers, so blocks are added in double.
        """
        blocks = zip(torch.split(self.basis, _BLOCK, 1), torch.split(vector, _BLOCK), strict=True)
        return torch.stack([(rows @ part).double() for rows, part in blocks]).sum(0).to(vector)

    def _without(self, vector: Tensor, parts: Tensor) -> Tensor:
        return torch.addmv(vector, self.basis.T, parts, alpha=-1)

    def _fresh(self) -> Tensor:
        """Return a random unit vector orthogonal to the basis."""
        vector = torch.randn(self.size, generator=self.generator, dtype=torch.float64)
        vector = self.orthogonal(self.orthogonal(vector.to(self._store)))
        unit: Tensor = vector / length_of(vector)
        return unit


def vector_dtype(size: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of vectors of a size: float64 up to 8 MB a vector, else the network's."""
    return torch.float64 if size <= _SMALL else torch.promote_types(dtype, torch.float32)


def length_of(vector: Tensor) -> float:
    """Return the 2-norm, added up in float64: torch loses digits over many float32 squares."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
