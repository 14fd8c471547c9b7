"""Was the accuracy still rising when the LR dropped? See Wang et al. (2023), Fig. 2."""

from __future__ import annotations

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.estimate import EarlyDecay
from trainscope.convergence.passage import centred_mean
from trainscope.convergence.stage import FirstStage, first_stage

FEWEST = 4
"""Records without which a slope has no error."""
SIGNIFICANT = 2.0
"""Standard errors above zero at which a slope counts."""
MOST_PAIRED = 400
"""Records whose pairs are looked at, the last ones."""
WORTH = 0.5
"""Points per doubling of the stage (`Metric.points`) below which a longer one is not worth it."""


def log_slope(stage: FirstStage) -> tuple[float, float]:
    """Return the slope of accuracy in log time over the last half of a stage, and its error.

    Returns:
        Percent per unit of log time, and its standard error, widened for the correlation that the
        residuals show; (0, inf) for fewer than `FEWEST` records.
    """
    part = stage.time >= stage.time[-1] / 2
    if len(stage) < FEWEST:
        return 0.0, float("inf")
    if part.sum() < FEWEST:
        part[-FEWEST:] = True
    s, z = np.log(stage.time[part]), stage.accuracy[part]
    s = s - s.mean()
    spread = float(s @ s)
    slope = float(s @ z) / spread
    residual = z - z.mean() - slope * s
    n = len(s)
    variance = float(residual @ residual) / (n - 2)
    if variance > 0 and n > 5:
        lag = float(residual[1:] @ residual[:-1]) / float(residual @ residual)
        lag = min(max(lag, 0.0), 0.8)
        variance *= (1 + lag) / (1 - lag)
    return slope, float(np.sqrt(variance / spread))


def _median_slope(stage: FirstStage) -> float:
    """Return the median slope of all pairs in the last half (Theil and Sen), without outliers."""
    part = stage.time >= stage.time[-1] / 2
    part[-FEWEST:] = True
    kept = np.flatnonzero(part)[-MOST_PAIRED:]
    s, z = np.log(stage.time[kept]), stage.accuracy[kept]
    i, j = np.triu_indices(len(s), 1)
    return float(np.median((z[j] - z[i]) / (s[j] - s[i])))


def early_decay(curve: LearningCurve) -> EarlyDecay | None:
    """Say whether the LR of a run dropped too early.

    Args:
        curve: A run with its decays, or without.

    Returns:
        None where the LR never drops, or fewer than `FEWEST` records stand before the drop.
    """
    stage = first_stage(curve)
    if stage is None or not stage.decayed or len(stage) < FEWEST:
        return None
    slope, stderr = log_slope(stage)
    slope = min(slope, _median_slope(stage))
    last = float(stage.time[-1])
    if (stage.time >= last / 2).sum() < FEWEST:  # the slope is also of the steep rise before that
        (before, after), (s, z) = np.log(stage.time[-2:]), stage.accuracy[-2:]
        slope = min(slope, float((z - s) / (after - before)))
    metric = curve.metric
    # A line in log epochs goes on above 100 %; an accuracy does not, nor a loss below 0.
    now = float(max(centred_mean(stage.accuracy)[-1], stage.accuracy.max()))
    left = 100.0 - now if metric.unit == "%" else -now if now < 0 and metric.sign < 0 else np.inf
    doubling = min(slope * float(np.log(2)), left)
    epoch = last + stage.lag
    early = slope > SIGNIFICANT * stderr and metric.points(doubling, now) >= WORTH
    error = f"(standard error {metric.change(stderr / last, 3).split(' ')[0]})"
    if early:
        moves = "rising" if metric.sign > 0 else "falling"
        text = (
            f"The LR dropped too early: at epoch {epoch:g} the {metric.name} was still {moves} by "
            f"{metric.change(slope / last, 3)} an epoch {error}, so that a first stage twice as "
            f"long may {'add' if metric.sign > 0 else 'take off'} up to "
            f"{metric.change(doubling, 1)}."
        )
    else:
        moved = metric.change(metric.sign * slope / last, 3, "+")
        text = (
            f"The LR did not drop too early: at epoch {epoch:g} the {metric.name} moved by "
            f"{moved} an epoch {error}."
        )
    return EarlyDecay(epoch, slope / last, stderr / last, doubling, early, text)
