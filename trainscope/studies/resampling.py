"""How sure a coefficient is: bootstrap intervals over candidates, and permutation p values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from trainscope.studies.association import Floats, Ints, Name, association, ranks, tau_parts

DRAWS = 2000
"""Bootstrap samples of an interval."""
SHUFFLES = 9999
"""Random permutations of a p value."""
FEWEST = 8
"""Candidates from which on a bootstrap interval is told."""
MOST_JACKKNIFED = 1000
"""More candidates have percentile intervals, which by then are hardly any others."""
_FEW_ENOUGH = 5040
_MANY = 60
"""Candidates from which on the null distribution of a tau with ties is taken as normal."""
Statistic = Callable[[Floats], Floats]
"""From weights [B, N] to a number [B] a sample."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A bootstrap interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        method: "BCa" or "percentile".
    """

    low: float
    high: float
    method: str


def bounds(
    statistic: Statistic, strata: Ints, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Bounds | None:
    """Return a bootstrap interval of a statistic, candidates drawn within their strata.

    Bias-corrected and accelerated (Efron 1987), its acceleration from a jackknife over candidates;
    the percentiles themselves for more than `MOST_JACKKNIFED` candidates, or where a statistic
    does not vary.

    Args:
        statistic: What is told of a sample.
        strata: [N], the stratum of each candidate.
        level: The probability that it holds the truth.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        The interval; None for fewer than `FEWEST` candidates, or where the statistic is not
        defined for most samples.
    """
    n = len(strata)
    if n < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    drawn = statistic(_resampled(strata, draws, rng))
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if len(drawn) < draws / 2:
        return None
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    adjusted = _adjusted(statistic, drawn, tails, n) if n <= MOST_JACKKNIFED else None
    low, high = np.quantile(drawn, tails if adjusted is None else adjusted)
    return Bounds(float(low), float(high), "percentile" if adjusted is None else "BCa")


def _resampled(strata: Ints, draws: int, rng: np.random.Generator) -> Floats:
    weights = np.zeros((draws, len(strata)))
    for stratum in np.unique(strata):
        held = np.flatnonzero(strata == stratum)
        weights[:, held] = rng.multinomial(len(held), np.full(len(held), 1 / len(held)), draws)
    return weights


def _adjusted(statistic: Statistic, drawn: Floats, tails: Floats, n: int) -> Floats | None:
    """Return the percentiles that BCa takes in the place of the plain ones."""
    from scipy.special import ndtr, ndtri

    value = float(statistic(np.ones((1, n)))[0])
    left_out = statistic(np.ones((n, n)) - np.eye(n))
    away = left_out.mean() - left_out
    squares = float(np.sum(away**2))
    below = (np.sum(drawn < value) + np.sum(drawn == value) / 2) / len(drawn)
    if not (math.isfinite(value) and math.isfinite(squares) and squares > 0 and 0 < below < 1):
        return None
    bias, pull = float(ndtri(below)), float(np.sum(away**3)) / (6 * squares**1.5)
    shifted = bias + ndtri(tails)
    found: Floats = ndtr(bias + shifted / (1 - pull * shifted))
    return found


def p_value(name: Name, x: Floats, y: Floats, strata: Ints, *, seed: int = 0) -> tuple[float, str]:
    """Return the two-sided p value of no association within strata, and how it was had.

    Args:
        name: Which coefficient.
        x: [N], finite, and varying within a stratum, as y.
        y: [N].
        strata: [N]; values change places within strata alone.
        seed: Of random permutations.

    Returns:
        The p value and "exact" (all permutations, or Kendall's own distribution where nothing is
        tied), "permutations" (9,999 random ones) or "normal" (Kendall's score with ties of more
        than 60 candidates, its variance corrected for the ties).
    """
    sizes = [int(np.sum(strata == stratum)) for stratum in np.unique(strata)]
    plain = len(sizes) == 1 and len(set(x)) == len(set(y)) == len(x)
    if name == "kendall" and plain and len(x) <= 170:
        from scipy.stats import kendalltau

        return float(kendalltau(x, y, method="exact").pvalue), "exact"
    ways = math.prod(math.factorial(min(size, 12)) for size in sizes)
    if name == "kendall" and len(x) > _MANY:
        return _normal(x, y, strata), "normal"
    if name == "spearman":  # ranks move with their values
        once = np.ones((1, len(x)))
        x, y, name = ranks(x, once, strata)[0], ranks(y, once, strata)[0], "pearson"
    seen = abs(float(association(name, x, y, strata=strata)[0]))
    exact = ways <= _FEW_ENOUGH
    moved = _all_orders(strata) if exact else _some_orders(strata, seed)
    found = association(name, x, y[moved], np.ones(moved.shape), strata)
    as_far = int(np.sum(np.abs(found) >= seen - 1e-12))
    if exact:
        return as_far / len(found), "exact"
    return (as_far + 1) / (len(found) + 1), "permutations"


def _all_orders(strata: Ints) -> Ints:
    parts = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    found = np.empty((math.prod(math.factorial(len(p)) for p in parts), len(strata)), np.int64)
    for row, orders in enumerate(product(*(permutations(part) for part in parts))):
        for part, order in zip(parts, orders, strict=True):
            found[row, part] = order
    return found


def _some_orders(strata: Ints, seed: int) -> Ints:
    rng = np.random.default_rng(seed)
    found = np.tile(np.arange(len(strata)), (SHUFFLES, 1))
    for stratum in np.unique(strata):
        held = strata == stratum
        found[:, held] = rng.permuted(found[:, held], axis=1)
    return found


def _normal(x: Floats, y: Floats, strata: Ints) -> float:
    """Return the p value of Kendall's score by its normal approximation (Kendall 1970, ch. 4)."""
    score = tau_parts(x, y, np.ones((1, len(x))), strata)[0][0] / 2
    variance = 0.0
    for stratum in np.unique(strata):
        held = strata == stratum
        variance += _variance(x[held], y[held])
    return math.erfc(abs(float(score)) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _variance(x: Floats, y: Floats) -> float:
    n = len(x)
    if n < 3:
        return 0.0
    t, u = (np.unique(values, return_counts=True)[1].astype(float) for values in (x, y))

    def threes(counts: Floats) -> float:
        return float(np.sum(counts * (counts - 1) * (2 * counts + 5)))

    def pairs(counts: Floats) -> float:
        return float(np.sum(counts * (counts - 1)))

    def triples(counts: Floats) -> float:
        return float(np.sum(counts * (counts - 1) * (counts - 2)))

    plain = (n * (n - 1) * (2 * n + 5) - threes(t) - threes(u)) / 18
    of_pairs = pairs(t) * pairs(u) / (2 * n * (n - 1))
    return plain + of_pairs + triples(t) * triples(u) / (9 * n * (n - 1) * (n - 2))
