"""One number a setting: its final accuracy or TA, and where it stands."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainscope.comparison.facts import method_of, ratio_of, schedule_of, speedup_of
from trainscope.comparison.settings import Setting, shared_first_stage
from trainscope.records import RunStatus
from trainscope.training.schedule import write_lr

Number = Literal["final", "ta"]
Against = Literal["ratio", "speedup"]
AXES = {"ratio": "ratio", "speedup": "speedup (dense FLOPs / pruned FLOPs)"}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting's number.

    Attributes:
        line: What it is joined with: method and LR schedule.
        label: The setting.
        x: Its ratio or speedup; None where that is not known.
        value: The mean over seeds, in the metric's unit.
        spread: The standard deviation over seeds; None for one run.
        values: Every seed's.
        diverged: Whether a run diverged.
    """

    line: str
    label: str
    x: float | None
    value: float
    spread: float | None
    values: tuple[float, ...]
    diverged: bool = False


def points(
    groups: Sequence[Setting], number: Number = "final", against: Against = "ratio"
) -> list[Point]:
    """Return the numbers of all settings that have one.

    Args:
        groups: The settings, of one metric.
        number: "final" (the last test value), or "ta" over the shortest first LR stage of all.
        against: "ratio" or "speedup".
    """
    shortest = shared_first_stage(groups)
    lines = line_labels(groups)
    read = ratio_of if against == "ratio" else speedup_of
    found = []
    for item, line in zip(groups, lines, strict=True):
        values = item.finals
        if number == "ta":
            values = [
                ta
                for run in item.runs
                if len(run.epochs) > 1 and (ta := run.trainability_accuracy(shortest)) is not None
            ]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            mean = statistics.fmean(values)
            x = read(item.first)
            lost = any(run.status is RunStatus.DIVERGED for run in item.runs)
            found.append(Point(line, item.label, x, mean, spread, tuple(values), lost))
    return found


def floor(points: Sequence[Point], sign: int = 1) -> float | None:
    """Return the worst value that the axis is to show; None for all of them.

    A setting with a diverged run may lie tens of points under the others, which would then look
    alike: it does not set the axis, and is marked at its edge.
    """
    known = [point for point in points if not point.diverged]
    ends = [sign * p.value - (p.spread or 0.0) for p in known]
    ends += [sign * value for p in known for value in p.values]
    low = min(ends, default=-math.inf)
    return sign * low if any(sign * point.value < low for point in points) else None


def line_labels(groups: Sequence[Setting]) -> list[str]:
    """Name the line that joins settings across ratios: the method and the LR schedule."""
    methods = {method_of(item.first) for item in groups}
    kinds = {str(item.first.kind) for item in groups}
    totals = {(item.lr, item.epochs) for item in groups}
    twice = {lr for lr, _ in totals if sum(one == lr for one, _ in totals) > 1}
    labels = []
    for item in groups:
        schedule = schedule_of(item.first)
        words = [str(item.first.kind)] if len(kinds) > 1 else []
        words += [method_of(item.first) or "method unknown"] if len(methods) > 1 else []
        lr = item.lr
        text = "LR ?" if lr is None or schedule is None else f"LR {write_lr(lr)}"
        words.append(text + (f", {item.epochs} epochs" if lr in twice else ""))
        labels.append(" · ".join(words))
    return labels
