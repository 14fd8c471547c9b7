"""The range of several normal samples' means in standard errors: what picking the extremes does."""

from __future__ import annotations

import numpy as np

NODES = 96
"""Points of each of the two quadratures; the tail is right to 1e-5."""


def range_tail(width: float, count: int, freedom: float) -> float:
    """Return how likely a studentised range is above a width.

    The range of `count` independent standard normal numbers, over the root of an independent
    chi-square of so many degrees of freedom divided by these (Tukey, 1953).

    Args:
        width: Not negative.
        count: Of the numbers, 2 or more.
        freedom: Degrees of freedom, above 0.
    """
    from scipy.special import gammaincinv, ndtr

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    # Over the quantiles of the chi-square, denser near 0, where the range is widest.
    part = (nodes + 1) / 2
    quantiles, share = part**2, weights * part
    scale = np.sqrt(2 * gammaincinv(freedom / 2, quantiles) / freedom)
    low = 9 * nodes  # of the smallest of the numbers
    height = 9 * weights * np.exp(-(low**2) / 2) / np.sqrt(2 * np.pi)
    above = ndtr(low[None, :] + width * scale[:, None]) - ndtr(low)[None, :]
    inside = count * (above ** (count - 1)) @ height
    return float(np.clip(1 - share @ inside, 0.0, 1.0))
