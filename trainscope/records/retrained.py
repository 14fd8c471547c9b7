"""What a trainability accuracy holds, whatever the metric is that it is the mean of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainscope.records.measurement import Measurement
from trainscope.records.metric import ACCURACY, Metric
from trainscope.records.standard_errors import jackknife

START, CURVES = "start_accuracy", "epoch_accuracies"
"""Names of an accuracy's scalar and array; of any other metric they are the two below."""
LEFT_OUT = "left_out"
"""The array of means without each part of the test half, the start's in the first row."""
START_METRIC, CURVES_METRIC = "start_metric", "epoch_metrics"


@dataclass(frozen=True)
class Retrained:
    """Short retrainings at several LRs, read from a Measurement.

    Attributes:
        metric: What the test measures.
        start: Its value before the first step; None where it is not known.
        lrs: The learning rates.
        curves: Its values after each epoch, [LRs][N].
        losses: The training losses likewise; None where one is not finite.
        steps: Optimizer steps of what counts as an epoch here; None for whole epochs.
        settings: Of the optimizer, by name; empty where an earlier version did not keep them.
        left_out: The start, and the mean of each LR's curve, with each part of the test half left
            out, [1 + LRs][parts]; rows are empty where that is not known.
    """

    metric: Metric
    start: float | None
    lrs: list[float]
    curves: list[list[float]]
    losses: list[list[float | None]]
    steps: int | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: list[list[float]] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """The number of tests, N."""
        return len(self.curves[0]) if self.curves else 0

    @property
    def span(self) -> str:
        """What the mean is taken over: "5 epochs", or "200 steps, tested every 40"."""
        if self.steps is not None:
            return f"{self.steps * self.epochs} steps, tested every {self.steps}"
        return "epoch" if self.epochs == 1 else f"{self.epochs} epochs"

    @property
    def title(self) -> str:
        """What the mean is called: "trainability accuracy", or "trainability RMSE"."""
        return f"trainability {self.metric.name}"

    @property
    def tested(self) -> str:
        """What is tested: "top-1 test accuracy", or "test RMSE"."""
        return f"{'top-1 ' if self.metric == ACCURACY else ''}test {self.metric.name}"


def retrained(measurement: Measurement) -> Retrained:
    """Read a trainability accuracy; one that was skipped has no LRs."""
    arrays = measurement.arrays
    told = arrays.get("metric")
    metric = ACCURACY if told is None else Metric(*map(str, told))
    names = (START, CURVES) if metric.is_accuracy else (START_METRIC, CURVES_METRIC)
    lrs = list(arrays.get("lrs", []))
    steps = arrays.get("steps")
    return Retrained(
        metric=metric,
        start=measurement.get(names[0]),
        lrs=lrs,
        curves=[list(curve) for curve in arrays.get(names[1], [])],
        losses=[list(each) for each in arrays.get("epoch_losses", [[] for _ in lrs])],
        steps=None if not steps else int(steps[0]),
        settings={
            str(row[0]): row[1]
            for row in arrays.get("settings", [])
            if isinstance(row, list) and len(row) == 2
        },
        left_out=[list(row) for row in arrays.get(LEFT_OUT, [])],
    )


def beyond_noise(
    gap: float, of: float, one: Retrained, row: int, other: Retrained, other_row: int
) -> bool | None:
    """Tell whether the gap of two values on the same test samples is more than two standard errors.

    The error is the jackknife over parts of the test half of the difference itself, since what a
    hard part adds to one value it adds to the other; of a metric that is not in percent and above
    zero (a perplexity, an RMSE), of the difference of logarithms, as one part may hold most of it.

    Args:
        gap: In the metric's points (`Metric.points`).
        of: The value that it is a gap from.
        one: Retrainings.
        row: Whose mean's parts are taken: 0 for the start, 1 for the first LR, and so on.
        other: Retrainings tested on the same samples; the same ones, say.
        other_row: Which mean of these.

    Returns:
        None where the parts are not known.
    """
    try:
        a, b = one.left_out[row], other.left_out[other_row]
    except IndexError:
        return None
    if len(a) != len(b) or len(a) < 2:
        return None
    if one.metric.unit != "%" and min(*a, *b) > 0:
        a, b = ([math.log(value) for value in row] for row in (a, b))
        return 100 * math.log1p(max(gap, -99.0) / 100) > 200 * _error(a, b)
    return gap > one.metric.points(2 * _error(a, b), of)


def _error(a: list[float], b: list[float]) -> float:
    """Return the standard error of a difference from its values without each part."""
    return jackknife([x - y for x, y in zip(a, b, strict=True)])
