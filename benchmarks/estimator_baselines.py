"""What people do without the estimator: four predictions of the first passage."""

from __future__ import annotations

import numpy as np
from estimator_protocol import Case
from scipy.optimize import curve_fit, minimize_scalar


def lr_ratio(case: Case) -> float:
    """Return the ratio of the LRs times the large run's epochs."""
    return case.ratio * case.share * case.large.length


def time_factor(case: Case) -> float:
    """Return the large run's epochs times the one factor that best maps it on the small run."""
    watched = np.arange(1.0, case.epochs + 1)
    mine = case.small.accuracy[1 : case.epochs + 1]
    its_time = np.arange(case.large.length + 1.0)

    def error(log_factor: float) -> float:
        its = np.interp(watched / np.exp(log_factor), its_time, case.large.accuracy)
        return float(((mine - its) ** 2).mean())

    grid = np.linspace(-1.0, np.log(case.ratio) + 1.5, 80)
    best = grid[int(np.argmin([error(g) for g in grid]))]
    step = grid[1] - grid[0]
    found = minimize_scalar(error, bounds=(best - step, best + step), method="bounded")
    passage = case.share * case.large.length * float(np.exp(found.x))
    return max(passage, float(case.epochs))


def log_line(case: Case) -> float:
    """Return where a line in log epoch through the last half of the watched epochs arrives."""
    first = max(case.epochs // 2, 1)
    time = np.arange(first, case.epochs + 1.0)
    slope, level = np.polyfit(np.log(time), case.small.accuracy[first : case.epochs + 1], 1)
    if slope <= 0:
        return float("inf")
    with np.errstate(over="ignore"):
        return max(float(np.exp((case.target - level) / slope)), float(case.epochs))


def least_squares_power_law(case: Case) -> float:
    """Return where a power law with an asymptote, fitted by least squares, arrives."""
    time = np.arange(1.0, case.epochs + 1)
    values = case.small.accuracy[1 : case.epochs + 1]

    def law(t: np.ndarray, top: float, gap: float, power: float) -> np.ndarray:
        return top - gap * t**-power

    try:
        (top, gap, power), _ = curve_fit(
            law,
            time,
            values,
            p0=(min(values[-1] + 5, 99.9), 50.0, 0.5),
            bounds=((0, 0, 0.01), (100, 300, 5)),
            max_nfev=400,
        )
    except RuntimeError:
        return float("inf")
    if case.target >= top:
        return float("inf")
    return max(float((gap / (top - case.target)) ** (1 / power)), float(case.epochs))
