"""Whether sets of accuracies differ by more than their seeds do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

LEVEL = 0.05
"""The level of every test here, two-sided."""
LEAST = 0.5
"""Points within which two accuracies are level, and no setting is behind another."""
ONE_SEED = 2.0
"""Points from which one seed a side is enough for a warning: about two standard errors of the
difference between two accuracies near 98 % of 400 samples."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of means, tested against 0.

    Attributes:
        value: The sum, in the unit of the samples.
        low: The lower end of its 95 % interval, minus infinity where there are too few seeds.
        high: The upper end.
        p: The two-sided p value; 1 where there are too few seeds.
        error: The standard error of the sum; 0 where there are too few seeds.
        freedom: The degrees of freedom of that error; None where there are too few seeds, or no
            spread at all.
    """

    value: float
    low: float
    high: float
    p: float
    error: float = 0.0
    freedom: float | None = None

    @property
    def significant(self) -> bool:
        """Return whether it differs from 0 at the level of 5 %."""
        return self.p < LEVEL


def contrast(samples: Sequence[Sequence[float]], weights: Sequence[float]) -> Contrast:
    """Test a weighted sum of the means of independent samples, variances not assumed equal.

    Source: Welch (1947), with the Welch-Satterthwaite degrees of freedom. Where no
    sample has any spread, each has that of rounding to the smallest step between their values.

    Args:
        samples: The accuracies, one sequence a cell, each with one value at least.
        weights: One weight a cell.
    """
    from scipy.special import stdtr, stdtrit

    value = math.fsum(w * statistics.fmean(s) for w, s in zip(weights, samples, strict=True))
    if min(map(len, samples)) < 2:
        return Contrast(value, -math.inf, math.inf, 1.0)
    parts = [w**2 * statistics.variance(s) / len(s) for w, s in zip(weights, samples, strict=True)]
    total = math.fsum(parts)
    if total == 0:
        # Seeds that tie say that the spread is under the step in which accuracies come, not that it
        # is zero: the variance of a uniform error over that step.
        step = _step([each for sample in samples for each in sample])
        if step is None:
            return Contrast(value, value, value, 1.0 if value == 0 else 0.0)
        pairs = zip(samples, weights, strict=True)
        parts = [w**2 * step**2 / 12 / len(sample) for sample, w in pairs]
        total = math.fsum(parts)
    error = math.sqrt(total)
    freedom = total**2 / math.fsum(
        part**2 / (len(s) - 1) for part, s in zip(parts, samples, strict=True)
    )
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    half = float(stdtrit(freedom, 0.975)) * error
    return Contrast(value, value - half, value + half, p, error, freedom)


def _step(values: Sequence[float]) -> float | None:
    """Return the smallest difference between two values, None where all are one."""
    ordered = sorted(set(values))
    return min((b - a for a, b in pairwise(ordered)), default=None)


def untested(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether a side has one value: there is no test then."""
    return min(len(first), len(second)) < 2


def welch(first: Sequence[float], second: Sequence[float], *, among: int = 2) -> Contrast:
    """Return mean(first) - mean(second), tested.

    Args:
        first: The accuracies of one side.
        second: Of the other.
        among: Of how many settings these two were picked by their means, as the best and the worst
            are: the test is then that of Games and Howell (1976), which finds a difference among
            alike settings as often as Welch's finds one between two. The interval stays that of
            the two by themselves.
    """
    found = contrast((first, second), (1.0, -1.0))
    if among <= 2 or found.freedom is None:
        return found
    from scipy.stats import studentized_range  # a second to import, which two settings need not

    width = math.sqrt(2) * abs(found.value) / found.error
    return replace(found, p=float(studentized_range.sf(width, among, found.freedom)))


def hedges_g(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the difference of means in pooled standard deviations, corrected for small samples.

    Source: Hedges (1981). None with fewer than two values on a side, or without any spread.
    """
    if min(len(first), len(second)) < 2:
        return None
    freedom = len(first) + len(second) - 2
    pooled = sum((len(v) - 1) * statistics.variance(v) for v in (first, second)) / freedom
    if pooled == 0:
        return None
    raw = (statistics.fmean(first) - statistics.fmean(second)) / math.sqrt(pooled)
    return raw * (1 - 3 / (4 * freedom - 1))


def seeds_needed(difference: float, spread: float) -> int | None:
    """Return the seeds a cell that show a difference with 80 % power, by the normal approximation.

    Args:
        difference: In points, not 0.
        spread: The standard deviation over seeds, in points.
    """
    if difference == 0 or spread == 0:
        return None
    return max(3, math.ceil(2 * ((1.960 + 0.842) * spread / difference) ** 2))
