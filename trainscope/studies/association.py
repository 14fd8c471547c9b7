"""Kendall's tau-b, Spearman's rho and Pearson's r of samples in which a candidate may come often.

All three are told for many samples at once: a sample is a row of weights, how often each candidate
is in it. A bootstrap sample, a jackknife sample and the data themselves are such rows, so that one
formula serves for all. Where candidates come from several strata (data sets, structures), only
candidates of one stratum are compared with each other.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Name = Literal["kendall", "spearman", "pearson"]
NAMES: tuple[Name, ...] = ("kendall", "spearman", "pearson")
LABELS = {"kendall": "Kendall tau-b", "spearman": "Spearman rho", "pearson": "Pearson r"}
_BLOCK = 512
"""Candidates whose pairs with all others are looked at together, which bounds the memory."""
_PAIRS = 2**17
"""The same where each sample has values of its own: pairs of several samples."""


def association(
    name: Name, x: Floats, y: Floats, weights: Floats | None = None, strata: Ints | None = None
) -> Floats:
    """Return a coefficient of association, in [-1, 1], for each sample.

    Args:
        name: Which one.
        x: [N], finite.
        y: [N] of the same candidates, or [B, N] where each sample has values of its own.
        weights: [B, N], how often each candidate is in each sample; by default one sample, each
            candidate once.
        strata: [N], the stratum of each candidate; by default all are of one.

    Returns:
        [B]; NaN for a sample in which x or y does not vary within any stratum.
    """
    n = len(x)
    weights = np.ones((1, n)) if weights is None else weights
    strata = np.zeros(n, dtype=np.int64) if strata is None else strata
    if name == "kendall":
        return _kendall(x, y, weights, strata)
    if name == "spearman":
        x, y = ranks(x, weights, strata), ranks(y, weights, strata)
    return _moments(x, y, weights, strata)


def tau_parts(x: Floats, y: Floats, weights: Floats, strata: Ints) -> tuple[Floats, ...]:
    """Return, for each sample, the pairs told apart and in order, by x, and by y.

    Args:
        x: [N].
        y: [N], or [B, N].
        weights: [B, N].
        strata: [N].

    Returns:
        Three arrays [B], each over ordered pairs (twice the number of pairs): concordant minus
        discordant ones, those that differ in x, and those that differ in y.
    """
    found = [np.zeros(len(weights)) for _ in range(3)]
    own = y.ndim == 2
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        same = strata[:, None] == strata[None, part]
        by_x = np.sign(x[:, None] - x[None, part]) * same
        if own:
            found[1] += np.einsum("bi,bi->b", weights @ abs(by_x), weights[:, part])
            step = max(1, _PAIRS // by_x.size)
            for first in range(0, len(y), step):
                rows = slice(first, first + step)
                values, w = y[rows], weights[rows]
                by_y = np.sign(values[:, :, None] - values[:, None, part]) * same
                for total, pairs in ((found[0], by_x * by_y), (found[2], abs(by_y))):
                    total[rows] += np.einsum("bi,bi->b", (w[:, None] @ pairs)[:, 0], w[:, part])
            continue
        by_y = np.sign(y[:, None] - y[None, part]) * same
        for total, pairs in zip(found, (by_x * by_y, abs(by_x), abs(by_y)), strict=True):
            total += np.einsum("bi,bi->b", weights @ pairs, weights[:, part])
    return tuple(found)


def _kendall(x: Floats, y: Floats, weights: Floats, strata: Ints) -> Floats:
    ordered, by_x, by_y = tau_parts(x, y, weights, strata)
    return _divided(ordered, np.sqrt(by_x * by_y))


def ranks(values: Floats, weights: Floats, strata: Ints) -> Floats:
    """Return the mid-ranks of samples within strata, [B, N], counted from 1.

    Args:
        values: [N], or [B, N].
        weights: [B, N]; copies of one candidate share the mean of their ranks.
        strata: [N].
    """
    if values.ndim == 2:
        rows = (ranks(v, w[None], strata) for v, w in zip(values, weights, strict=True))
        return np.concatenate(list(rows))
    order = np.lexsort((values, strata))
    by_value, by_stratum = values[order], strata[order]
    other = np.append(True, np.diff(by_stratum) != 0)  # another stratum begins
    new = other | np.append(True, np.diff(by_value) != 0)  # another value begins
    starts = np.flatnonzero(new)
    held = np.add.reduceat(weights[:, order], starts, axis=1)  # copies at each value
    before = np.cumsum(held, axis=1) - held
    begun = np.flatnonzero(other[starts])[np.cumsum(other[starts]) - 1]  # its stratum's first value
    middle = before - before[:, begun] + (held + 1) / 2
    found = np.empty(weights.shape)
    found[:, order] = middle[:, np.cumsum(new) - 1]
    return found


def _moments(x: Floats, y: Floats, weights: Floats, strata: Ints) -> Floats:
    """Return the correlation of what deviates from the strata's means."""
    x, y = np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape)
    x, y = _centred(x, weights, strata), _centred(y, weights, strata)
    xy, xx, yy = (np.sum(weights * a * b, axis=1) for a, b in ((x, y), (x, x), (y, y)))
    return _divided(xy, np.sqrt(xx * yy))


def _centred(values: Floats, weights: Floats, strata: Ints) -> Floats:
    """Return values without their means within strata; what is left of rounding is 0."""
    found = np.array(values, dtype=np.float64)
    for stratum in np.unique(strata):
        held = strata == stratum
        total = weights[:, held].sum(axis=1, keepdims=True)
        mean = (weights[:, held] * values[:, held]).sum(axis=1, keepdims=True)
        mean = np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)
        found[:, held] -= mean
    size = np.abs(values).max(initial=0.0)
    found[np.abs(found) <= 8 * np.finfo(float).eps * size] = 0.0
    return found


def _divided(numbers: Floats, by: Any) -> Floats:
    """Return quotients, kept in [-1, 1] against rounding; NaN where the divisor is 0."""
    out = np.full(len(numbers), np.nan)
    shares: Floats = np.clip(np.divide(numbers, by, out=out, where=by > 0), -1.0, 1.0)
    return shares
