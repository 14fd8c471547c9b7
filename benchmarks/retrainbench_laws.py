"""Laws that are fitted to curves: power laws in time, and two of the LR's whole schedule.

The annealing law is that of Tissue et al. (2024): loss = L0 + A S1^-a - C S2, with S1 the sum of
the LR and S2 that of its falls, each carried on with a memory. The multi-power law is that of Luo
et al. (2025): every fall of the LR lowers the loss by an amount that grows with the LR time after
it. A pruned network does not start at an infinite loss, so S1 has an origin of its own here. Both
are fitted to the records watched and to those of the reference at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import least_squares

from trainscope.convergence import Interval
from trainscope.convergence.bench import METRICS, BenchCurve, BenchQuestion

Rates = np.ndarray
Law = Callable[[np.ndarray, Rates], np.ndarray]
POWERS = np.geomspace(0.01, 5.0, 60)
MEMORY = 0.999
"""Of the annealing law, for one step."""


def power_law(time: np.ndarray, values: np.ndarray, target: float, *, shift: bool) -> float:
    """Return where top - gap (t + t0)^-power reaches a target; inf where it does not.

    The least squares are exact in top and gap, and looked for on a grid of power and origin.
    """
    origins = np.geomspace(0.02, 2.0, 24) * time[-1] if shift else np.zeros(1)
    power, origin = (axis.ravel() for axis in np.meshgrid(POWERS, np.append(0.0, origins)))
    x = (time + origin[:, None]) ** -power[:, None]
    apart = x - x.mean(1, keepdims=True)
    gap = -(apart @ values) / (apart**2).sum(1)
    top = values.mean() + gap * x.mean(1)
    misses = ((top[:, None] - gap[:, None] * x - values) ** 2).sum(1)
    misses[gap <= 0] = np.inf
    best = int(np.argmin(misses))
    if gap[best] <= 0 or target >= top[best]:
        return math.inf
    with np.errstate(over="ignore"):
        return float((gap[best] / (top[best] - target)) ** (1 / power[best]) - origin[best])


def annealing_law(question: BenchQuestion) -> Interval:
    """Return where the annealing law says that the run ends."""
    return _fitted(question, _annealing, (0.5,), ((0.0,), (50.0,)))


def multi_power_law(question: BenchQuestion) -> Interval:
    """Return where the multi-power law says that the run ends."""
    return _fitted(
        question, _multi, (0.5, 0.1, 0.5, 0.5), ((0.0, 1e-4, 0.0, 0.05), (50.0, 50.0, 1.5, 3.0))
    )


def _fitted(
    question: BenchQuestion,
    law: Callable[[np.ndarray, Rates], np.ndarray],
    start: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]],
) -> Interval:
    """Fit base - gap (S1 + origin)^-power + law(own parameters, LRs) and read its end.

    Without a fall of the LR in evidence the law's first parameter, its size, stays 0.
    """
    sign = METRICS[question.metric].sign
    shown: list[tuple[BenchCurve, int]] = [(question.watched, question.until)]
    if question.reference is not None:
        shown.append((question.reference, question.reference.length))
    peak = max(float(curve.peak_lr) for curve, _ in shown)
    rates = [curve.lr[1 : n + 1] / peak for curve, n in shown]
    values = [sign * curve.values(question.metric)[1 : n + 1] for curve, n in shown]
    everything = np.concatenate(values)
    span, top = float(np.ptp(everything)) or 1.0, float(everything.max())
    time = max(float(rate.sum()) for rate in rates)
    falls = any((np.diff(rate) < 0).any() for rate in rates)
    low, high = list(bounds[0]), list(bounds[1])
    if not falls:
        start, high = (0.0, *start[1:]), [1e-9, *high[1:]]

    def curve(p: np.ndarray, rate: Rates) -> np.ndarray:
        base = p[0] - p[1] * ((np.cumsum(rate) + p[3]) / time) ** -p[2]
        return base + (span * law(p[4:], rate) if falls else 0.0)

    def misses(p: np.ndarray) -> np.ndarray:
        pairs = zip(rates, values, strict=True)
        return np.concatenate([(curve(p, r) - v) / span for r, v in pairs])

    scale = (span, span, 1.0, time, *(1.0 for _ in start))
    found = least_squares(
        misses,
        (top + 0.1 * span, 0.2 * span, 0.5, 0.05 * time, *start),
        bounds=(
            (top - 2 * span, 0, 0.05, 1e-3 * time, *low),
            (top + 9 * span, 9 * span, 3, 9 * time, *high),
        ),
        x_scale=scale,
        loss="soft_l1",
        f_scale=0.05,
        max_nfev=60,
    )
    assert question.planned is not None
    end = curve(found.x, question.planned.lr[1:] / peak)[-1]
    return Interval(sign * float(end), math.nan, math.nan)


def _annealing(p: np.ndarray, rate: Rates) -> np.ndarray:
    """Return C S2, [N]: the falls of the LR up to each record, remembered and summed."""
    falls = -np.diff(rate, prepend=rate[0])
    n = len(rate)
    age = np.arange(n)[:, None] - np.arange(n)[None, :]
    kept = np.where(age >= 0, MEMORY ** np.maximum(age, 0), 0.0)
    momentum = kept @ falls
    return p[0] * np.cumsum(momentum) / n


def _multi(p: np.ndarray, rate: Rates) -> np.ndarray:
    """Return what every fall of the LR has gained up to each record, [N]."""
    size, pace, gamma, beta = p
    total = np.cumsum(rate)
    place = np.flatnonzero(np.diff(rate, prepend=rate[0]) != 0)
    if not len(place):
        return np.zeros(len(rate))
    falls = -np.diff(rate, prepend=rate[0])[place]
    before = total[place] - rate[place]
    since = np.maximum(total[:, None] - before[None, :], 0.0)
    paced = pace * 100 * np.maximum(rate[place], 1e-6) ** -gamma * since
    return size * ((1 - (1 + paced) ** -beta) * falls).sum(1)
