"""Standard errors of functions of a mean gradient, by leaving one sample out, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainscope.records.standard_errors import jackknife, widened

Values = NDArray[np.float64]


@dataclass(frozen=True)
class GradientMoments:
    """The two moments of per-sample gradients that norm, snr and noise scale are functions of.

    Attributes:
        mean_square: |mean gradient|^2.
        sum_squares: The sum over samples of |g_i|^2.
        count: The number of samples.
    """

    mean_square: Values
    sum_squares: Values
    count: int

    @property
    def noise(self) -> Values:
        """Return the unbiased estimate of tr Sigma, the variance of one sample's gradient."""
        return (self.sum_squares - self.count * self.mean_square) / (self.count - 1)

    @property
    def signal(self) -> Values:
        """Return the unbiased estimate of |G|^2, the squared norm of the expected gradient."""
        return self.mean_square - self.noise / self.count


def moments(squares: Values, dots: Values) -> tuple[GradientMoments, GradientMoments]:
    """Return the moments of all samples, and those with each sample left out.

    Args:
        squares: |g_i|^2, [N].
        dots: <g_i, mean gradient>, [N].
    """
    count = len(squares)
    mean_square, total = dots.mean(), squares.sum()
    everything = GradientMoments(np.asarray(mean_square), np.asarray(total), count)
    if count < 2:
        return everything, everything
    left_mean = (count**2 * mean_square - 2 * count * dots + squares) / (count - 1) ** 2
    return everything, GradientMoments(np.maximum(left_mean, 0), total - squares, count - 1)


def stderr(left_out: Values) -> float | None:
    """Return the jackknife standard error from the values with each sample left out, [N].

    Like every error here it is widened for few samples (`widened`).
    """
    if len(left_out) < 2 or not np.isfinite(left_out).all():
        return None
    return jackknife(left_out.tolist())


def stepped(error: float | None, step: float) -> float | None:
    """Return the error of what moves in steps: at least half of one, also of samples all alike."""
    return None if error is None else max(error, step / 2)


def mean_stderr(values: Values) -> float | None:
    """Return the standard error of the mean of independent values, None for one of them."""
    count = len(values)
    return widened(float(values.std(ddof=1)) / count**0.5, count) if count > 1 else None


def function_of(
    pair: tuple[GradientMoments, GradientMoments],
    function: Callable[[GradientMoments], Values],
) -> tuple[float, float | None]:
    """Return a function of the moments and its jackknife standard error."""
    everything, left_out = pair
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(function(everything))
        return value, stderr(function(left_out)) if left_out.count > 1 else None


GROUPS = 8
"""Groups of samples that are left out one after the other, where each takes a decomposition."""


def grouped_stderr(
    value: float,
    count: int,
    function: Callable[[NDArray[np.int64]], float | None],
    *,
    factors: bool = False,
) -> float | None:
    """Return the jackknife standard error of a function of samples, by leaving out groups.

    It is at least what leaving out a group moves the value by on the mean: a rank or a spectrum
    grows with the samples, and the halves of two samples may well be alike.

    Args:
        value: The function of all samples.
        count: The number of samples; sample i is in group i modulo `GROUPS`.
        function: Of the indices of the samples that stay; None where it has no value.
        factors: The value is above zero and goes by factors from sample to sample, as a condition
            number does: the error is that of its logarithm, and reaches to the farther side.

    Returns:
        None for fewer than 2 samples, or where a value is missing.
    """
    groups = min(GROUPS, count)
    if groups < 2:
        return None
    places = np.arange(count)
    left_out = [function(places[places % groups != group]) for group in range(groups)]
    if any(each is None for each in left_out):
        return None
    found = np.array([value, *left_out], dtype=np.float64)
    with np.errstate(divide="ignore"):
        found = np.log(found) if factors else found
    error = stderr(found[1:])
    if error is None:
        return None
    error = max(error, abs(float(found[0] - found[1:].mean())))
    return value * math.expm1(min(error, _FARTHEST)) if factors else error


_FARTHEST = 100.0
"""Of the error of a logarithm, beyond which nothing is known in any case."""
