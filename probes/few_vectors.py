"""Lanczos with two vectors: the ends of a large matrix's spectrum where no basis fits in memory.

The three-term recurrence alone, without reorthogonalisation: each step writes over the older of two
vectors. Rounding then brings copies of eigenvalues that have converged, and no value that is none
(Paige 1980; Greenbaum 1989), so the ends of the spectrum and its density hold, and which value is
the second or third largest does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainscope.probes.lanczos import Ritz
from trainscope.probes.passes import NonFiniteError
from trainscope.probes.rounding import rounding_of
from trainscope.probes.streamed import dot, squared
from trainscope.probes.streamed_products import StreamedProduct

_BLOCK = 2**18


class PlainLanczos:
    """A Krylov space of which only the last two vectors are held, in the network's dtype.

    Attributes:
        alphas: The diagonal of the tridiagonal matrix T.
        betas: What couples each vector to the one after it; 0 where the space was exhausted.
        size: The number of dimensions.
        skew: The largest |<u, Hv> - <v, Hu>| over pairs of consecutive vectors; 0 where the samples
            are several batches, for it is not seen there.
    """

    def __init__(self, product: StreamedProduct, generator: torch.Generator) -> None:
        """Start from a random vector.

        Args:
            product: The matrix.
            generator: Draws it, always on the CPU.
        """
        self.product, self.size = product, product.size
        tensors, masks = product.measured.tensors, product.measured.masks
        self._now = [_random(t, m, generator) for t, m in zip(tensors, masks, strict=True)]
        self._before = [torch.zeros_like(piece) for piece in self._now]
        _scale(self._now, 1 / _length(self._now))
        dtype = self._now[0].dtype
        self.rounding = rounding_of(dtype) or 4 * torch.finfo(dtype).eps
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.skew = 0.0

    @property
    def steps(self) -> int:
        """Return the number of products."""
        return len(self.alphas)

    @property
    def exhausted(self) -> bool:
        """Tell whether there is nothing further: the Ritz values are eigenvalues."""
        return bool(self.betas) and self.betas[-1] == 0

    def grow(self) -> None:
        """Take one step: one product, added to what is left of the vector before the last.

        Raises:
            NonFiniteError: The product is NaN or infinite.
        """
        beta = self.betas[-1] if self.betas else 0.0
        _scale(self._before, -beta)
        seen = 0.0

        def look(place: int, part: Tensor) -> None:
            nonlocal seen
            seen += float(dot(part, self._before[place]))

        watch = self.product.single and beta > 0
        self.product.add(self._now, self._before, look if watch else None)
        alpha = _dot(self._now, self._before) / _squared(self._now)
        for older, newer in zip(self._before, self._now, strict=True):
            older.sub_(newer, alpha=alpha)
        rest = _length(self._before)
        if not np.isfinite(alpha) or not np.isfinite(rest):
            raise NonFiniteError("a product with the curvature matrix holds NaN or infinite values")
        if watch:  # <v, H u> of the last two vectors is beta, and was multiplied with -beta
            self.skew = max(self.skew, abs(-seen / beta - beta))
        self.alphas.append(alpha)
        scale = max(max(map(abs, self.alphas)), max(self.betas, default=0.0))
        if self.steps == self.size or rest <= self.rounding * max(scale, rest):
            rest = 0.0
        self.betas.append(rest)
        if rest:
            _scale(self._before, 1 / rest)
            self._now, self._before = self._before, self._now

    def ritz(self, steps: int | None = None) -> Ritz:
        """Return the Ritz values after so many steps, by default all."""
        steps = self.steps if steps is None else steps
        off = self.betas[: steps - 1]
        matrix = np.diag(self.alphas[:steps]) + np.diag(off, 1) + np.diag(off, -1)
        values, vectors = np.linalg.eigh(matrix)
        return Ritz(values, np.abs(self.betas[steps - 1] * vectors[-1]), vectors[0] ** 2)

    @property
    def symmetric(self) -> bool:
        """Tell whether the products so far can be those of a symmetric matrix."""
        scale = max(max(map(abs, self.alphas)), max(self.betas, default=0.0))
        return self.skew <= max(1e-4, 8 * self.rounding) * scale


def _random(tensor: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """Return normal numbers shaped like a parameter, the same in every dtype but for rounding."""
    out = torch.empty_like(tensor, requires_grad=False, memory_format=torch.contiguous_format)
    for part in torch.split(out.view(-1), _BLOCK):
        part.copy_(torch.randn(len(part), generator=generator, dtype=torch.float64))
    return out if mask is None else out.mul_(mask)


def _scale(vector: Sequence[Tensor], factor: float) -> None:
    for piece in vector:
        piece.mul_(factor)


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float(dot(a, b)) for a, b in zip(left, right, strict=True))


def _squared(vector: Sequence[Tensor]) -> float:
    return sum(float(squared(piece)) for piece in vector)


def _length(vector: Sequence[Tensor]) -> float:
    return float(np.sqrt(_squared(vector)))
