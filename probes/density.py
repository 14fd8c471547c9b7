"""The spectral density of a symmetric matrix, by stochastic Lanczos quadrature.

For a random vector v, the tridiagonal matrix of Lanczos started at v holds a quadrature of v's
spectral measure: its eigenvalues are the nodes, the squared first components of its eigenvectors
the weights. Their mean over random vectors estimates the density (Ubaru, Chen, Saad 2017; Ghorbani,
Krishnan, Xiao 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainscope.probes.lanczos import Ritz, Values


@dataclass(frozen=True)
class Density:
    """A spectral density smoothed by a Gaussian.

    Attributes:
        x: Eigenvalues, an even grid, [points].
        y: Density per unit of eigenvalue, [points]; its integral is 1.
        stderr: Its standard error over starting vectors, [points]; None for one vector.
        width: The Gaussian's standard deviation.
    """

    x: Values
    y: Values
    stderr: Values | None
    width: float


def spectral_density(runs: Sequence[Ritz], *, points: int = 256, share: float = 0.01) -> Density:
    """Return the smoothed density from the Ritz values and weights of random starts.

    Args:
        runs: One for each random vector.
        points: Of the grid.
        share: The Gaussian's standard deviation as a share of the range of the Ritz values.
    """
    low = min(float(run.values.min()) for run in runs)
    high = max(float(run.values.max()) for run in runs)
    span = max(high - low, 1e-6 * abs(high), 1e-30)  # a single eigenvalue has no range
    width = share * span
    x = np.linspace(low - 4 * width, high + 4 * width, points)
    each = np.stack([_smoothed(run, x, width) for run in runs])
    stderr = each.std(0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
    return Density(x, each.mean(0), stderr, width)


def _smoothed(run: Ritz, x: Values, width: float) -> Values:
    """Return one quadrature's Gaussian mixture on a grid."""
    scaled = (x[:, None] - run.values) / width
    bumps = np.exp(-0.5 * scaled**2) / (width * np.sqrt(2 * np.pi))
    total: Values = bumps @ run.weights
    return total
