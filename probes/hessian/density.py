"""The spectral density of a symmetric matrix, by stochastic Lanczos quadrature.

For a random vector v, the tridiagonal matrix of Lanczos started at v holds a quadrature of v's
spectral measure: its eigenvalues are the nodes, the squared first components of its eigenvectors
the weights. Their mean over random vectors estimates the density (Ubaru, Chen, Saad 2017; Ghorbani,
Krishnan, Xiao 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trainscope.probes.hessian.lanczos import Ritz, Values


@dataclass(frozen=True)
class Density:
    """A spectral density smoothed by a Gaussian.

    Attributes:
        x: Eigenvalues, an even grid, [points].
        y: Density per unit of eigenvalue, [points]; its integral is 1.
        stderr: Its standard error, [points]: that over random vectors, and beside it the change
            since two steps earlier. None for one vector, and where that change is too large to
            stand for what further steps would change.
        width: The Gaussian's standard deviation.
        change: The share of the density that moved in the last two steps.
    """

    x: Values
    y: Values
    stderr: Values | None
    width: float
    change: float


class Recurrence(Protocol):
    """What is read of a Lanczos run.

    Attributes:
        betas: What couples each vector to the one after it; 0 where the space was exhausted.
    """

    betas: list[float]

    @property
    def size(self) -> int:
        """Return the number of dimensions."""

    @property
    def steps(self) -> int:
        """Return the number of products."""

    def parts(self, steps: int | None = None) -> list[Ritz]:
        """Return the Ritz values after so many steps, by what they started from."""


@dataclass(frozen=True)
class Quadrature:
    """What one random vector says of the density.

    Attributes:
        now: Its nodes and weights.
        earlier: Those two steps earlier; the same where they are exact.
        size: The number of dimensions.
    """

    now: Ritz
    earlier: Ritz
    size: int

    @classmethod
    def of(cls, run: Recurrence) -> Quadrature:
        """Read a Lanczos run with a random start; its basis is not kept."""
        now = run.parts()[0]
        exact = 0 in run.betas
        earlier = now if exact else run.parts(max(1, run.steps - 2))[0]
        return cls(now, earlier, run.size)


RESOLVED = 0.02
"""Above this change no standard error is given: on small networks two of them hold 90 % below it,
and 80 % or less where the change is twice as large."""


def spectral_density(
    runs: Sequence[Quadrature], *, points: int = 256, share: float = 0.01
) -> Density:
    """Return the smoothed density from the quadratures of random vectors.

    The variance over random vectors comes from the density itself, for the spread of two or three
    runs is no estimate of it: with v uniform on the sphere in P dimensions, that of v' f(H) v is
    2 / (P + 2) times the variance of f over the eigenvalues.

    Args:
        runs: One for each random vector.
        points: Of the grid.
        share: The Gaussian's standard deviation as a share of the range of the Ritz values.
    """
    ritz = [run.now for run in runs]
    low = min(float(each.values.min()) for each in ritz)
    high = max(float(each.values.max()) for each in ritz)
    span = max(high - low, 1e-6 * abs(high), 1e-30)  # a single eigenvalue has no range
    width = share * span
    x = np.linspace(low - 4 * width, high + 4 * width, points)
    y = np.stack([_smoothed(each, x, width) for each in ritz]).mean(0)
    earlier = np.stack([_smoothed(run.earlier, x, width) for run in runs]).mean(0)
    squared = np.stack([_smoothed(each, x, width / np.sqrt(2)) for each in ritz]).mean(0)
    squared /= 2 * width * np.sqrt(np.pi)  # the square of a Gaussian is a narrower one
    variance = 2 / (runs[0].size + 2) * np.maximum(squared - y**2, 0) / len(runs)
    change = float(np.trapezoid(np.abs(y - earlier), x)) / 2
    known = change <= RESOLVED and len(runs) > 1  # one vector may all but miss an eigenvalue
    stderr = np.sqrt(variance + (y - earlier) ** 2) if known else None
    return Density(x, y, stderr, width, change)


def _smoothed(ritz: Ritz, x: Values, width: float) -> Values:
    """Return one quadrature's Gaussian mixture on a grid."""
    scaled = (x[:, None] - ritz.values) / width
    bumps = np.exp(-0.5 * scaled**2) / (width * np.sqrt(2 * np.pi))
    total: Values = bumps @ ritz.weights
    return total
