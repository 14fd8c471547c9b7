"""Lanczos with two vectors: the ends of a large matrix's spectrum where no basis fits in memory.

The three-term recurrence alone, without reorthogonalisation: each step writes over the older of two
vectors. Rounding then brings copies of eigenvalues that have converged, and no value that is none
(Paige 1980; Greenbaum 1989), so the ends of the spectrum and its density hold, and which value is
the second or third largest does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from trainscope.pace import INTERRUPTIONS, cut_short
from trainscope.probes.hessian.density import Quadrature
from trainscope.probes.hessian.eigenvalues import TELLS, Eigenvalues, errors_above
from trainscope.probes.hessian.lanczos import Lanczos, Ritz
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.hessian.spectrum import NoMatrixError, Spectrum
from trainscope.probes.hessian.streamed_products import StreamedProduct
from trainscope.probes.hessian.trace import Trace
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.probes.subject.streamed import dot, squared
from trainscope.records.standard_errors import widened

BLOCK = 2**18
"""Numbers that are drawn in float64 at once."""


class PlainLanczos:
    """A Krylov space of which only the last two vectors are held, in the network's dtype.

    Attributes:
        alphas: The diagonal of the tridiagonal matrix T.
        betas: What couples each vector to the one after it; 0 where the space was exhausted.
        rounding: The relative error of a product, and so of an eigenvalue.
        skew: |<u, Hv> - <v, Hu>| of the first two vectors, where it was to be found out.
    """

    def __init__(
        self, product: StreamedProduct, generator: torch.Generator, *, check: bool = False
    ) -> None:
        """Start from a random vector.

        Args:
            product: The matrix.
            generator: Draws it, always on the CPU.
            check: Find out whether the matrix is symmetric, for one product more.
        """
        self.product = product
        product.prepare()
        self._now = _random_pieces(product, generator)
        self._before = [torch.zeros_like(piece) for piece in self._now]
        _scale(self._now, 1 / _length(self._now))
        # In bfloat16 eigenvalues of transformers are off by up to two thirds of that.
        self.rounding = 4 * torch.finfo(self._now[0].dtype).eps
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.skew, self._check = 0.0, check

    @property
    def size(self) -> int:
        """Return the number of dimensions."""
        return self.product.size

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
        if self.steps == 1 and self._check and beta:
            seen = along(self.product, self._now, self._before)
            self.skew = abs(seen - beta)
        _scale(self._before, -beta)
        self.product.add(self._now, self._before)
        alpha = _dot(self._now, self._before) / _squared(self._now)
        for older, newer in zip(self._before, self._now, strict=True):
            older.sub_(newer, alpha=alpha)
        rest = _length(self._before)
        if not np.isfinite(alpha) or not np.isfinite(rest):
            raise NonFiniteError("a product with the curvature matrix holds NaN or infinite values")
        self.alphas.append(alpha)
        if self.steps == self.size or rest <= self.rounding / 2 * self._scale():
            rest = 0.0
        self.betas.append(rest)
        if rest:
            _scale(self._before, 1 / rest)
            self._now, self._before = self._before, self._now

    def parts(self, steps: int | None = None) -> list[Ritz]:
        """Return the Ritz values as `Lanczos` does: there is one part."""
        return [self.ritz(steps)]

    def release(self) -> None:
        """Let the vectors go; what is known of the matrix stays."""
        self._now, self._before = [], []

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
        return self.skew <= max(1e-3, 8 * self.rounding) * self._scale()

    def _scale(self) -> float:
        """Return a lower estimate of the matrix's norm."""
        return max(max(map(abs, self.alphas)), max(self.betas, default=0.0))


def _random_pieces(
    product: StreamedProduct, generator: torch.Generator, *, signs: bool = False
) -> list[Tensor]:
    """Return normal numbers or signs, zero where masked, in every dtype the same up to rounding."""
    found = []
    for tensor, mask in zip(product.measured.tensors, product.measured.masks, strict=True):
        out = torch.empty_like(tensor, requires_grad=False, memory_format=torch.contiguous_format)
        for part in torch.split(out.view(-1), BLOCK):
            drawn = torch.randn(len(part), generator=generator, dtype=torch.float64)
            part.copy_(drawn.sign() if signs else drawn)
        found.append(out if mask is None else out.mul_(mask))
    return found


def _scale(vector: Sequence[Tensor], factor: float) -> None:
    for piece in vector:
        piece.mul_(factor)


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float(dot(a, b)) for a, b in zip(left, right, strict=True))


def _squared(vector: Sequence[Tensor]) -> float:
    return sum(float(squared(piece)) for piece in vector)


def _length(vector: Sequence[Tensor]) -> float:
    return float(np.sqrt(_squared(vector)))


@dataclass(frozen=True)
class LeanWanted:
    """What is to be found; the names are `Curvature`'s."""

    tolerance: float
    most_products: int
    density_vectors: int
    density_steps: int


def lean_spectrum(
    product: StreamedProduct, generator: torch.Generator, wanted: LeanWanted
) -> tuple[Spectrum, Trace]:
    """Return the ends of a spectrum, its density and an estimate of its trace, from two vectors.

    The standard error of an end is that of `eigenvalues`, from the residuals: it needs the
    tridiagonal matrix alone. What rounding of products and vectors adds is `Spectrum.error`.
    A random unit vector v has E <v, Hv> = tr H / P, and |Hv| shows how far that scatters.

    Args:
        product: The matrix.
        generator: Draws the vectors.
        wanted: What is to be found.

    Raises:
        NoMatrixError: The products are not those of a symmetric matrix.
        NotDifferentiableError: Torch cannot make them.
        NonFiniteError: One of them is NaN or infinite.
    """
    runs: list[PlainLanczos] = []
    floor, cut, count = -np.inf, False, max(1, wanted.density_vectors)
    while len(runs) < count and not cut:
        floor = max((float(run.ritz().values[-1]) for run in runs), default=-np.inf)
        run = PlainLanczos(product, generator, check=not runs)
        runs.append(run)
        cut = _is_cut(run, wanted, floor, last=len(runs) == count)
        run.release()
    last = runs[-1]
    top = _ends(last, wanted, floor)
    wrong = next((run for run in runs if not run.symmetric), None)
    if wrong is not None:
        raise NoMatrixError(
            f"the products with the curvature matrix are not symmetric (<u, Hv> and <v, Hu> "
            f"differ by {wrong.skew:.2g} for unit vectors), and differences of gradients need a "
            "copy of the network in float64: give lean=False for them"
        )
    density = wanted.density_vectors and not cut
    return Spectrum(
        product=cast(MatrixProduct, product),  # a lean probe asks it for nothing more
        top=replace(top, converged=False, cut=True) if cut else top,
        runs=[Quadrature.of(run) for run in runs] if density else [],
        generator=generator,
        error=last.rounding,
    ), _trace(runs)


def _is_cut(run: PlainLanczos, wanted: LeanWanted, floor: float, *, last: bool) -> bool:
    """Grow a run until it has said what it is for; return True where an interruption ends it."""
    steps = wanted.density_steps if wanted.density_vectors else 1
    while True:
        try:
            run.grow()
        except INTERRUPTIONS as error:
            del run.alphas[len(run.betas) :]
            cut_short(error, tells=run.steps >= TELLS)
            return True
        enough = run.steps >= steps
        if last:
            enough = enough and _ends(run, wanted, floor).converged
        if enough or run.exhausted or (last and run.steps >= wanted.most_products):
            return False


def _ends(run: PlainLanczos, wanted: LeanWanted, floor: float) -> Eigenvalues:
    """Return what a run says of the largest eigenvalue and the smallest."""
    ritz = run.ritz()
    value, error = float(ritz.values[-1]), float(errors_above(ritz, 1, run.size)[0])
    allowed = wanted.tolerance * abs(value)
    turned = Ritz(-ritz.values[::-1], ritz.residuals[::-1], ritz.weights[::-1])
    return Eigenvalues(
        values=np.array([value]),
        errors=np.array([error]),
        smallest=float(ritz.values[0]),
        smallest_error=float(errors_above(turned, 1, run.size)[0]),
        converged=error <= allowed and value + allowed + run.rounding * abs(value) >= floor,
        krylov=cast(Lanczos, run),  # of which a report takes the number of products
    )


def along(product: StreamedProduct, vector: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return <other, H vector>, for which no third vector is needed."""
    total = 0.0

    def take(place: int, part: Tensor) -> None:
        nonlocal total
        total += float(dot(part, other[place]))

    product.each(vector, take)
    return total


def hutchinson(product: StreamedProduct, generator: torch.Generator, draws: int) -> Trace:
    """Return an estimate of a matrix's trace from random signs, which holds one vector."""
    found, dtype = [], product.measured.tensors[0].dtype
    for _ in range(draws):
        signs = _random_pieces(product, generator, signs=True)
        found.append(along(product, signs, signs))
    value, spread = float(np.mean(found)), 0.0
    if draws > 1:
        spread = widened(float(np.std(found, ddof=1)), draws)
    error = math.hypot(spread / draws**0.5, 4 * torch.finfo(dtype).eps * abs(value))
    return Trace(value, error, None, f"estimated from {draws} vectors of random signs (Hutchinson)")


def _trace(runs: Sequence[PlainLanczos]) -> Trace:
    size, count = runs[0].size, len(runs)
    value = size * float(np.mean([run.alphas[0] for run in runs]))
    # v is uniform on the sphere: the variance of <v, Hv> is 2 / (P + 2) of that of the eigenvalues.
    spread = 2 / (size + 2) * float(np.mean([run.betas[0] ** 2 for run in runs])) / count
    error = math.hypot(size * math.sqrt(spread), runs[0].rounding * abs(value))
    method = f"estimated from {count} random vector{'s' * (count > 1)} (Hutchinson)"
    return Trace(value, error, None, method)
