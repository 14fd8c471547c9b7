"""The largest eigenvalues of a curvature matrix, with a bound on the error of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainscope.probes.lanczos import Lanczos, Values
from trainscope.probes.products import Product


@dataclass(frozen=True)
class Eigenvalues:
    """The ends of a spectrum.

    Attributes:
        values: The largest k (fewer where the matrix is smaller), largest first.
        errors: A bound on each one's error, no finer than the rounding of the products.
        smallest: The smallest Ritz value; at or above the smallest eigenvalue.
        smallest_error: A bound on its error.
        converged: True where every value is within the tolerance.
        krylov: The space they come from.
    """

    values: Values
    errors: Values
    smallest: float
    smallest_error: float
    converged: bool
    krylov: Lanczos


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
) -> Eigenvalues:
    """Grow a Krylov space until the largest eigenvalues are known to a relative tolerance.

    Args:
        product: The matrix.
        start: The first vector [P].
        count: How many eigenvalues.
        tolerance: Relative; that of a value near zero counts from 1e-3 of the largest in size.
        generator: Draws a fresh vector where the space is exhausted.
        dtype: The network's.
        most_steps: Give up after this many products.
        least_steps: Go on to at least this many (or until the space is exhausted).
        at_least: Lower bounds for the largest eigenvalues, largest first: Ritz values of another
            start, which show an eigenvalue that this start has not met yet. For the same reason
            several eigenvalues must stay within the tolerance for `count` + 2 further products.
    """
    bounds = np.full(count, -np.inf)
    if at_least is not None:
        bounds[: len(at_least)] = at_least[:count]
    confirm = 0 if count == 1 else count + 2
    standing = 0
    krylov = Lanczos(product, start, generator, dtype)
    while True:
        krylov.grow()
        ritz = krylov.ritz()
        wanted = min(count, krylov.basis.shape[1])
        values, errors = ritz.values[::-1][:wanted], ritz.errors[::-1][:wanted]
        floor = 1e-3 * float(np.abs(ritz.values).max())
        # An invariant subspace is exact for what its start can see; a random start sees all.
        known = len(values) == wanted or krylov.exhausted
        allowed = tolerance * np.maximum(np.abs(values), floor)
        met = values + allowed >= bounds[: len(values)]
        converged = known and bool(met.all() and (errors <= allowed).all())
        standing = standing + 1 if converged else 0
        enough = krylov.steps >= least_steps and standing > confirm
        if krylov.full or krylov.steps >= most_steps:
            break
        if converged and (enough or krylov.exhausted):
            break
    # No bound is finer than the rounding of the products.
    rounding = krylov.rounding * float(np.abs(ritz.values).max())
    return Eigenvalues(
        values=values.copy(),
        errors=np.maximum(errors, rounding),
        smallest=float(ritz.values[0]),
        smallest_error=max(float(ritz.errors[0]), rounding),
        converged=converged,
        krylov=krylov,
    )
