"""The predicted curve that is drawn, and when there is none."""

from __future__ import annotations

import math

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.early_decay import log_slope
from trainscope.convergence.estimate import Band, EstimateStatus, Interval
from trainscope.convergence.passage import Floats
from trainscope.convergence.passages import Passages
from trainscope.convergence.stage import FEW, SAME, FirstStage

HALF = 0.5
FURTHEST = 10.0
"""Times the epochs watched to which a curve is predicted: estimates were checked as far."""
SOME = 3
"""Levels of the grid that are drawn in any case."""
STEEP = 2.0
"""Times by which a curve alone may be steeper over log time, where it is drawn, than it was."""
NEAR = 2.0
"""Times what was watched up to which it may be: levels just ahead, amid the noise, lie close."""
POINTS = 60
"""Epochs at which the predicted curve is given."""

DISAGREE = (
    "No curve is predicted: by the passages of the levels before it the target would be passed, "
    "and by the law of schedules it is not."
)


def withheld_for(stage: FirstStage, passage: Interval, status: EstimateStatus) -> str:
    """Return why no curve is predicted: a sentence, or nothing."""
    if status is EstimateStatus.REACHED:
        return ""
    if len(stage) < FEW:
        return (
            f"No curve is predicted: {len(stage)} epochs at this LR were watched, and it takes "
            f"{FEW}."
        )
    if passage.median - stage.lag > FURTHEST * float(stage.time[-1]):
        return (
            "No curve is predicted: the target lies more than ten times the epochs watched ahead, "
            "where no prediction was ever checked."
        )
    return ""


def drawn_band(
    ahead: Passages,
    passage: Interval,
    tails: tuple[float, ...],
    small: LearningCurve,
    reference: FirstStage | None,
) -> Band:
    """Return the predicted values from the last watched record to well past the passage."""
    stage, scale = ahead.stage, small.scale
    last = float(stage.time[-1])
    ends = [end - stage.lag for end in (passage.high, passage.median) if math.isfinite(end)]
    until = min(max(1.2 * max(ends, default=0.0), 3 * last), FURTHEST * last)
    # Beyond what is in sight the prior alone would speak, and levels far apart lie at one time.
    alone = reference is None
    sight = ahead.forecast.in_sight if alone else ahead.reach
    seen = max(int(np.argmax(sight < HALF)) or len(sight), SOME)
    lines = [_line(ahead, p, seen, alone=alone) for p in tails]
    middle, early = (float(np.exp(lines[i][0][-1])) for i in (0, 1))
    if not alone:  # the band ends with its early edge, but not before the passage
        middle = min(middle, max(early, 1.1 * (passage.median - stage.lag)))
    until = min(until, max(middle, 1.2 * last))
    time = np.geomspace(last, until, POINTS)
    highest = (np.arange(len(sight)) < seen) & (ahead.reach >= min(*tails, HALF))
    top = float(ahead.levels[highest][-1]) if highest.any() else float(ahead.best[-1])
    rows = []
    for p, (x, y) in zip(tails, lines, strict=True):
        row = _along(np.log(time), x, y, top) if alone else np.interp(np.log(time), x, y)
        now = stage.accuracy[-1]  # what is drawn goes on from what was measured
        rows.append(np.append(now, row[1:] if p > HALF else np.maximum(row[1:], now)))
    middle_row, best, worst = rows
    best, worst = np.maximum(best, middle_row), np.minimum(worst, middle_row)
    low, high = (worst, best) if scale.metric.sign > 0 else (best, worst)
    told = (tuple(scale.within(row).tolist()) for row in (middle_row, low, high))
    return Band(tuple((time + stage.lag).tolist()), *told)


def _line(ahead: Passages, p: float, seen: int, *, alone: bool) -> tuple[Floats, Floats]:
    """Return log times and the levels that are reached by then with a probability, [K] each.

    Levels that are less likely to be reached than that are not on the line. Of levels that few laws
    reach, passages are those of the laws that do, the fast ones: without a reference the line ends
    where they crowd together.
    """
    on = (np.arange(len(ahead.levels)) < seen) & (ahead.reach >= min(p, HALF))
    time = np.append(np.log(ahead.stage.time[-1]), ahead.quantiles(p)[on])
    level = np.append(ahead.best[-1], ahead.levels[on])
    # Of levels that all are said to come at the last time the lowest one does.
    lowest = int(np.searchsorted(time, time[-1] - SAME))
    time, level = time[: lowest + 1], level[: lowest + 1]
    if not alone or len(time) < 3:
        return time, level
    slope = np.diff(level) / np.maximum(np.diff(time), 1e-9)
    mean = (level - level[0])[1:] / np.maximum((time - time[0])[1:], 1e-9)
    steep = slope[1:] > STEEP * np.maximum(mean[:-1], log_slope(ahead.stage)[0])
    steep &= time[1:-1] > time[0] + np.log(NEAR)
    end = int(np.argmax(steep)) + 2 if steep.any() else len(time)
    return time[:end], level[:end]


def _along(at: Floats, time: Floats, level: Floats, top: float) -> Floats:
    """Return the levels of a line at log times, [M]; after its end it goes on as it rose, to a top.

    A line of one level alone stays there.
    """
    rise = (level[-1] - level[0]) / max(time[-1] - time[0], 1e-9)
    beyond = np.maximum(at - time[-1], 0.0) * rise
    beyond = np.minimum(np.where(time[-1] > time[0], beyond, 0.0), max(top - level[-1], 0.0))
    return np.asarray(np.interp(at, time, level) + beyond)
