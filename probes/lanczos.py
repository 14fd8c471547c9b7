"""Lanczos with full reorthogonalisation: the ends of a symmetric matrix's spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainscope.probes.products import Product

Values = NDArray[np.float64]
_COLUMNS = 2**20


@dataclass(frozen=True)
class Ritz:
    """Approximate eigenvalues, ascending, and what bounds their error.

    Attributes:
        values: [m].
        errors: A bound on each one's distance from an eigenvalue, [m]: the smaller of the residual
            and residual^2 / gap (Kato-Temple), the gap being that to the nearest other Ritz value.
        weights: Squared first components of the eigenvectors of the tridiagonal matrix, [m]: the
            weights of a quadrature for the starting vector.
    """

    values: Values
    errors: Values
    weights: Values


class Lanczos:
    """A Krylov space of a symmetric matrix that grows by one product a step.

    Dot products are accumulated in float64. Where the space is exhausted (the starting vector had
    no part in the rest), `grow` goes on from a fresh random vector orthogonal to it.

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
            dtype: The network's. Products are exact to its rounding; the basis of a large matrix
                is stored in it, that of a small one in float64.
        """
        self.product, self.generator = product, generator
        self.rounding = 4 * torch.finfo(dtype).eps
        start = start.double()
        self.next: Tensor | None = start / start.norm()
        self._store = start.new_empty(8, len(start), dtype=_stored(len(start), dtype))
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.skew = 0.0

    @property
    def steps(self) -> int:
        """Return the number of vectors in the basis."""
        return len(self.alphas)

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
        return self.steps == self._store.shape[1]

    def grow(self) -> None:
        """Add one vector to the basis: one product."""
        current = self._fresh() if self.next is None else self.next
        if self.steps == len(self._store):
            self._store = torch.cat([self._store, torch.empty_like(self._store)])
        image = self.product(current)
        alpha = float(image @ current)
        rest = image - alpha * current
        if self.betas and self.betas[-1]:
            rest -= self.betas[-1] * self.basis[-1]
        self._store[self.steps] = current
        self.alphas.append(alpha)
        before = float(rest.norm())
        parts = self._parts(rest)
        self.skew = max(self.skew, float(parts.abs().max()))
        rest = self._without(rest, parts)
        if float(rest.norm()) < 0.7 * before:  # twice is enough (Parlett 1998)
            rest = self._orthogonal(rest)
        beta = float(rest.norm())
        # Below rounding there is no new direction left, only noise.
        if self.full or beta <= self.rounding * max(float(image.norm()), self._scale()):
            beta = 0.0
        self.betas.append(beta)
        self.next = rest / beta if beta else None

    @property
    def symmetric(self) -> bool:
        """Tell whether the products so far can be those of a symmetric matrix."""
        return self.skew <= max(1e-4, 8 * self.rounding) * self._scale()

    def ritz(self, steps: int | None = None) -> Ritz:
        """Return the eigenvalues of T, after so many steps (default all), with their bounds."""
        steps = self.steps if steps is None else steps
        off, last = self.betas[: steps - 1], self.betas[steps - 1]
        matrix = np.diag(self.alphas[:steps]) + np.diag(off, 1) + np.diag(off, -1)
        values, vectors = np.linalg.eigh(matrix)
        residuals = np.abs(last * vectors[-1])
        apart = np.concatenate([[np.inf], np.diff(values), [np.inf]])
        gaps = np.minimum(apart[:-1], apart[1:]) - residuals
        if len(values) == 1:  # one Ritz value says nothing of the gap
            gaps[:] = -1
        temple = np.divide(residuals**2, gaps, where=gaps > 0, out=np.full_like(gaps, np.inf))
        return Ritz(values, np.minimum(residuals, temple), vectors[0] ** 2)

    def _scale(self) -> float:
        """Return a lower estimate of the matrix's norm."""
        return max(max(map(abs, self.alphas)), max(self.betas, default=0.0))

    def _orthogonal(self, vector: Tensor) -> Tensor:
        """Return a float64 vector less its parts along the basis."""
        return self._without(vector, self._parts(vector))

    def _parts(self, vector: Tensor) -> Tensor:
        """Return a float64 vector's parts along the basis, [steps]."""
        columns = _columns(vector)
        return torch.stack([self.basis[:, c].double() @ vector[c] for c in columns]).sum(0)

    def _without(self, vector: Tensor, parts: Tensor) -> Tensor:
        columns = _columns(vector)
        return torch.cat([vector[c] - parts @ self.basis[:, c].double() for c in columns])

    def _fresh(self) -> Tensor:
        """Return a random unit vector orthogonal to the basis."""
        size = self._store.shape[1]
        vector = torch.randn(size, generator=self.generator, dtype=torch.float64)
        vector = self._orthogonal(self._orthogonal(vector.to(self._store.device)))
        unit: Tensor = vector / vector.norm()
        return unit


def _columns(vector: Tensor) -> list[slice]:
    return [slice(i, i + _COLUMNS) for i in range(0, len(vector), _COLUMNS)]


def _stored(size: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a basis of vectors of a size: float64 up to 8 MB a vector."""
    return torch.float64 if size <= _COLUMNS else dtype
