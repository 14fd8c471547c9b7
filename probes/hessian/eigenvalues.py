"""The largest eigenvalues of a curvature matrix, with a bound on the error of each.

A residual only says that some eigenvalue is near, and the gap in finer bounds (Kato-Temple) is that
to the next eigenvalue, which a cluster hides. What bounds the largest eigenvalue is that the start
is random. The product p of (x - Ritz value) over the Ritz values is, of all polynomials of its
degree, the one whose value at the matrix, times the start, is shortest: b, the product of Lanczos'
betas. So p(x)^2 w <= b^2 at an eigenvalue x whose eigenvector holds the share w of the start. A
random start has at least w = (c / sqrt P)^2, but for a small chance, along every vector. Near a
Ritz value with the residual r and the share v this says |x - value| <= r sqrt(v / w) (van
Dorsselaer, Hochstenbach, van der Vorst 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainscope.pace import INTERRUPTIONS, cut_short
from trainscope.probes.hessian.lanczos import Lanczos, Ritz, Values
from trainscope.probes.hessian.products import Product
from trainscope.probes.hessian.spaces import Space

CHANCE = 0.05
"""The chance that a random start has a smaller part along an eigenvector than the bounds trust: a
bound is two standard errors, which hold as often at the least."""
CHANCE_OF_SEVERAL = 1e-3
"""The same where several eigenvalues are wanted, any of which may be the one that hides. At 0.05
those of clusters lay beyond two standard errors in a third of 34 spectra, at 0.01 in an eighth."""
CONFIRM = 2
"""Further products for which several eigenvalues must stay known. Of 240 spectra with pairs and
clusters at their top none hid an eigenvalue for longer; without, one in thirty of the clusters."""
TELLS = 3
"""Products from which on an interrupted search has something to say."""
PART = (np.pi / 2) ** 0.5
"""A normal variable is in size below this times a small chance with that chance."""


@dataclass(frozen=True)
class Eigenvalues:
    """The ends of a spectrum.

    Attributes:
        values: The largest k (fewer where the matrix is smaller), largest first.
        errors: The standard error of each, rounding of the products included. Two of them bound
            its distance from the true eigenvalue of its rank, but where the start has hardly a part
            along an eigenvector, a chance of at most `CHANCE` for a random one. Of eigenvalues that
            are equal, or nearer to each other than the bound, one start may see only one; the next
            rank then holds the eigenvalue after them.
        smallest: The smallest Ritz value; at or above the smallest eigenvalue.
        smallest_error: Its standard error.
        converged: True where every value is within the tolerance.
        krylov: The space they come from.
        cut: An interruption ended the search.
    """

    values: Values
    errors: Values
    smallest: float
    smallest_error: float
    converged: bool
    krylov: Lanczos
    cut: bool = False


def largest_eigenvalues(
    product: Product,
    start: Tensor,
    count: int,
    *,
    tolerance: float,
    generator: torch.Generator,
    dtype: torch.dtype,
    most_steps: int = 100,
    least_steps: int = 1,
    at_least: Sequence[float] | None = None,
    space: Space | None = None,
) -> Eigenvalues:
    """Grow a Krylov space until the largest eigenvalues are known to a relative tolerance.

    Interrupted after `TELLS` products, it returns what they say, where that is wanted (see
    `pace.cut_short`).

    Args:
        product: The matrix.
        start: The first vector [P], a random one.
        count: How many eigenvalues.
        tolerance: Relative; that of a value near zero counts from 1e-3 of the largest in size.
        generator: Draws a fresh vector where the space is exhausted.
        dtype: The network's.
        most_steps: Give up after this many products.
        least_steps: Go on to at least this many (or until the space is exhausted).
        at_least: Lower bounds for the largest eigenvalues, largest first: Ritz values of another
            start, which show an eigenvalue that this start has not met yet. For the same reason
            several eigenvalues must stay within the tolerance for `CONFIRM` further products,
            and where the space is exhausted, fresh vectors are drawn until one shows no more.
        space: Where the vectors live; by default they are held whole.
    """
    krylov = Lanczos(product, start, generator, dtype, space)
    confirm = 0 if count == 1 else CONFIRM
    standing = 0
    while True:
        try:
            krylov.grow()
        except INTERRUPTIONS as error:
            cut_short(error, tells=krylov.steps >= TELLS)
            return cut_off(krylov, count, tolerance)
        known = _largest(krylov, count, tolerance, at_least or ())
        standing = standing + 1 if known.converged else 0
        enough = krylov.steps >= least_steps and standing > confirm
        given_up = krylov.full or krylov.steps >= most_steps
        if given_up or (known.converged and (enough or krylov.exhausted)):
            return _told(krylov, known)


def cut_off(krylov: Lanczos, count: int, tolerance: float) -> Eigenvalues:
    """Return what a space says that an interruption keeps from growing."""
    known = _largest(krylov, count, tolerance, ())
    return replace(_told(krylov, known), converged=False, cut=True)


class _Known(NamedTuple):
    """The largest values, their errors, and whether they are known to the tolerance."""

    values: Values
    errors: Values
    converged: bool


def _largest(krylov: Lanczos, count: int, tolerance: float, at_least: Sequence[float]) -> _Known:
    """Return what a space says of the largest values."""
    bounds = np.full(count, -np.inf)
    bounds[: len(at_least)] = at_least[:count]
    wanted = min(count, krylov.size)
    *older, newest = krylov.parts()
    known = [each.values for each in older]  # exactly
    ends = newest.values[::-1] + errors_above(newest, wanted, krylov.size)
    every = _descending([*known, newest.values])
    values = every[:wanted]
    errors = _descending([*known, ends])[: len(values)] - values
    allowed = tolerance * np.maximum(np.abs(values), 1e-3 * float(np.abs(every).max()))
    met = values + allowed >= bounds[: len(values)]
    # A fresh vector shows what equal eigenvalues hide from the start.
    shown = count == 1 or not (older or krylov.exhausted) or krylov.full
    shown = shown or bool(ends[0] <= values[-1] + allowed[-1])
    converged = len(values) == wanted and bool(met.all() and (errors <= allowed).all())
    return _Known(values.copy(), errors, converged and shown)


def _told(krylov: Lanczos, known: _Known) -> Eigenvalues:
    """Return both ends of what a space says."""
    newest, every = krylov.parts()[-1], krylov.values
    mirrored = Ritz(-newest.values[::-1], newest.residuals[::-1], newest.weights[::-1])
    lowest = float(newest.values[0] - errors_above(mirrored, 1, krylov.size)[0])
    rounding = krylov.rounding * float(np.abs(every).max())
    return Eigenvalues(
        values=known.values,
        errors=known.errors + rounding,
        smallest=float(every[0]),
        smallest_error=max(0.0, float(every[0]) - lowest) + rounding,
        converged=known.converged,
        krylov=krylov,
    )


def _descending(values: Sequence[Values]) -> Values:
    return np.sort(np.concatenate(values))[::-1]


def errors_above(ritz: Ritz, count: int, size: int) -> Values:
    """Return the standard errors of the largest Ritz values of a random start, largest first.

    Args:
        ritz: The Ritz values.
        count: For so many of the largest; the rest is 0.
        size: The number of dimensions.
    """
    part = PART * (CHANCE if count == 1 else CHANCE_OF_SEVERAL)
    return reach(ritz, count, part**2 / size) / 2


def reach(ritz: Ritz, count: int, least: float) -> Values:
    """Return how far above its Ritz value the eigenvalue of the same rank can be, largest first.

    Args:
        ritz: The Ritz values.
        count: For so many of the largest; the rest is 0.
        least: The smallest share of the start along an eigenvector.
    """
    values = ritz.values[::-1]
    near = (ritz.residuals * np.sqrt(ritz.weights / least))[::-1]
    reach = np.zeros(len(values))
    for j in range(min(count, len(values))):
        if not near[j]:
            continue
        apart = np.delete(values, j) - values[j]
        gap = values[j - 1] - values[j] if j else np.inf
        tried = near[j] * np.geomspace(1e-3, 1e3, 241)
        tried = tried[tried < gap]
        with np.errstate(divide="ignore"):
            grown = np.log(np.abs(1 - tried[:, None] / apart)).sum(1) + np.log(tried / near[j])
        beyond = tried[grown >= 0]
        # Where the polynomial is small all the way to the next value, so is what is known there.
        reach[j] = beyond[0] if len(beyond) else gap + reach[j - 1]
    return reach
