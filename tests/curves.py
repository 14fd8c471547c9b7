"""Learning curves of known law, for tests."""

from __future__ import annotations

import numpy as np

from trainscope.convergence import LearningCurve

TOP, GAP, POWER = 75.0, 60.0, 0.6


def law(time: np.ndarray, *, pace: float = 1.0) -> np.ndarray:
    """Return a power law with asymptote `TOP`, percent."""
    return TOP - GAP * (1 + np.asarray(time) / pace) ** -POWER


def passage(target: float, *, pace: float = 1.0) -> float:
    """Return when the law reaches a target."""
    return pace * (((TOP - target) / GAP) ** (-1 / POWER) - 1)


def curve(
    count: int, *, pace: float = 1.0, lr: float = 0.1, noise: float = 0.0, seed: int = 0
) -> LearningCurve:
    """Return the law at epochs 0 to `count`, with a training loss that follows it."""
    time = np.arange(count + 1.0)
    clean = law(time, pace=pace)
    rng = np.random.default_rng(seed)
    return LearningCurve(time, clean + noise * rng.normal(size=len(time)), lr, (100 - clean) / 30)
