"""The values of a metric as the estimator works on them: points that rise as a run gets better.

A percentage has its points. Any other metric is put on a scale of its own curves, on which the
first record is 0 and the best that was seen is `SEEN`: whatever its unit, its zero and its
direction, the same curve has the same points. A perplexity is worked on in its logarithm, as losses
are added up and perplexities multiplied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trainscope.convergence.passage import Floats
from trainscope.records import Metric

if TYPE_CHECKING:
    from trainscope.convergence.curve import LearningCurve

Values = TypeVar("Values", float, Floats)

SEEN = 10.0
"""Points from the first record to the best of the curves, of a metric that is no percentage: levels
up to 100 points are looked at, ten times what was seen."""
LARGEST = 600.0
"""The logarithm above which a perplexity is told as this one's."""
UNITS = {"nats": 1.0, "bits": math.log(2), "": 1.0}
"""Of losses, in nats."""
_LOSS = re.compile(
    r"^((val(id(ation)?)?|test|eval(uation)?|dev)[\W_]*)?loss$|entropy|likelihood|\bnll\b",
    re.IGNORECASE,
)
LEAST = 1e-9
"""The span of a curve that does not move, as a share of its size."""


@dataclass(frozen=True)
class Scale:
    """What turns a metric's values into points, and back.

    Attributes:
        metric: The metric.
        origin: Where 0 points are, on the axis that rises with quality.
        points: Points for each unit of that axis.
        log: The axis is the logarithm of the metric.
        least: The smallest value that the metric has; None where that is not known.
    """

    metric: Metric
    origin: float = 0.0
    points: float = 1.0
    log: bool = False
    least: float | None = None

    @property
    def percent(self) -> bool:
        """Return whether the points are those of a percentage."""
        return self.metric.unit == "%"

    def quality(self, value: Values) -> Values:
        """Return points from values; an error in percent has those that it lacks of 100.

        Args:
            value: In the metric's unit.
        """
        if self.percent:
            return value if self.metric.sign > 0 else 100.0 - value
        axis = np.log(value) if self.log else value
        found: Values = (self.metric.sign * axis - self.origin) * self.points
        return found

    def value(self, quality: Values) -> Values:
        """Return values from points."""
        if self.percent:
            return quality if self.metric.sign > 0 else 100.0 - quality
        axis = self.metric.sign * (quality / self.points + self.origin)
        found: Values = np.exp(np.minimum(axis, LARGEST)) if self.log else axis
        return found

    def within(self, quality: Values) -> Values:
        """Return values from points, kept within the metric's range: a loss is 0 or more."""
        value = self.value(quality)
        if self.percent:
            value = np.clip(value, 0.0, 100.0)
        elif self.least is not None:
            value = np.maximum(value, self.least)
        return value

    def written(self, quality: float) -> str:
        """Write a value, like "97.25 %" or "3.281 nats"."""
        return self.metric.written(float(self.value(quality)), 2)

    def gap(self, low: float, high: float, places: int = 2, sign: str = "") -> str:
        """Write how far apart two places are, like "1.25 points" or "0.034 nats".

        Args:
            low: Points.
            high: Points; above `low` for a gain.
            places: Decimals of a percentage.
            sign: "+" to write the way that the metric moves, which is down where lower is better.
        """
        moved = float(self.value(high)) - float(self.value(low))
        return self.metric.change(moved if sign else abs(moved), places, sign)


def shared_scale(curves: Sequence[LearningCurve]) -> Scale:
    """Return one scale for curves of one metric; the first curve has a record.

    Args:
        curves: The curve that is watched, then its reference, if any.
    """
    metric = curves[0].metric
    if metric.unit == "%":
        return Scale(metric)
    held = [curve.accuracy for curve in curves if len(curve)]
    log = "perplexity" in metric.name.lower() and all(bool((each > 0).all()) for each in held)
    axes = [metric.sign * (np.log(each) if log else each) for each in held]
    first = min(float(each[0]) for each in axes)
    best = max(float(each.max()) for each in axes)
    spread = max(float(np.ptp(each)) for each in axes)
    span = best - first or spread or LEAST * max(abs(best), 1.0)
    least = min(float(each.min()) for each in held)
    bound = (1.0 if least >= 1 else 0.0) if log else 0.0 if nats_of(metric) and least >= 0 else None
    return Scale(metric, first, SEEN / span, log, bound)


def nats_of(metric: Metric) -> float | None:
    """Return the nats that one of a loss' unit is; None for what is no cross-entropy by its name.

    A loss that says no unit is taken to be in nats.
    """
    if metric.sign > 0 or metric.unit not in UNITS:
        return None
    named = metric.unit or _LOSS.search(metric.name)
    return UNITS[metric.unit] if named else None
