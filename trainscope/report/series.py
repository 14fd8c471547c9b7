"""Curves of one setting, averaged over its seeds: what figures and the page draw."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainscope.comparison.settings import Setting
from trainscope.errors import RecordError
from trainscope.records import EpochRecord, Kind, Metric, Run
from trainscope.records.metric import ACCURACY
from trainscope.records.trainability import trainability_name
from trainscope.report.rows import description

Y = Literal["metric", "loss"]
X = Literal["epoch", "lr_time"]
AXES = {
    "epoch": "epoch of retraining",
    "lr_time": "LR time: sum of LR over the epochs",
}
_READ: dict[str, Callable[[EpochRecord], float | None]] = {
    "metric": lambda record: record.test_metric,
    "loss": lambda record: record.train_loss,
}
ROOM = 0.4
"""An axis of test values starts this share of the final values' spread behind the last of them."""
FAR, FAR_OF_OTHERS = 30.0, 300.0
"""Points behind the best, and hundredths of its level, from which on a setting sets no axis."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One number over retraining.

    Attributes:
        label: The setting.
        x: Epochs, or LR time.
        mean: The mean over seeds.
        low: The smallest over seeds.
        high: The largest over seeds.
        drops: Places in `x` after which the LR drops.
    """

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    drops: tuple[int, ...] = ()


def by_metric(groups: Sequence[Setting]) -> list[tuple[Metric, list[Setting]]]:
    """Return the settings of every metric by themselves: no axis holds two of them."""
    held: dict[Metric, list[Setting]] = {}
    for item in groups:
        held.setdefault(item.metric, []).append(item)
    return list(held.items())


def one_metric(groups: Sequence[Setting]) -> Metric:
    """Return the metric of settings that are drawn on one axis; accuracy for none.

    Raises:
        RecordError: There are several.
    """
    held = by_metric(groups)
    if len(held) > 1:
        told = ", ".join(metric.label for metric, _ in held)
        raise RecordError(f"one axis holds one metric, and these settings have {told}: draw each")
    return held[0][0] if held else ACCURACY


def test_axis(metric: Metric) -> str:
    """Return what stands along an axis of test values: their name, with the unit in brackets."""
    if metric == ACCURACY:
        return "top-1 test accuracy [%]"
    return f"test {metric.name} [{metric.unit}]" if metric.unit else f"test {metric.name}"


def loss_axis(metric: Metric) -> str:
    """Return what stands along an axis of training losses of runs told by a metric."""
    unit = metric.loss_unit
    return f"training loss [{unit}]" if unit else "training loss"


def ta_axis(metric: Metric | None, epochs: int | None = None) -> str:
    """Return the short name of trainability in tables and along axes: "TA@10 [%]".

    Args:
        metric: What it is of; None for several.
        epochs: N, where it is to be told.
    """
    over = f"@{epochs}" if epochs else ""
    if metric is None:
        return f"trainability{over}"
    name = "TA" if metric.is_accuracy else trainability_name(metric)
    return f"{name}{over} [{metric.unit}]" if metric.unit else f"{name}{over}"


def mean_spread(metric: Metric, mean: float | None, spread: float | None) -> str:
    """Return "97.80 ± 0.70" without its unit, as a table has it; a dash where it is not known."""
    if mean is None:
        return "–"
    unit = f" {metric.unit}" if metric.unit else ""
    return metric.written(mean, 2, spread).removesuffix(unit)


def common(groups: Sequence[Setting]) -> Metric | None:
    """Return the metric that all settings are told by; None where they are several."""
    held = by_metric(groups)
    return held[0][0] if len(held) == 1 else None


def heading(what: str, metric: Metric | None) -> str:
    """Return the head of a column, like "final [%]" or "final loss"; every metric's if None."""
    if metric is None:
        return what
    name = what if metric.is_accuracy else f"{what} {metric.name}"
    return f"{name} [{metric.unit}]" if metric.unit else name


def span(metric: Metric, ends: Sequence[float], best: float) -> tuple[float, float]:
    """Return the ends of an axis about where curves end, not where they start.

    Args:
        metric: What the values are of.
        ends: Where the curves end.
        best: The best value of any.
    """
    sign = metric.sign
    top, worst = sign * best, min(sign * end for end in ends)
    least = 1.0 if metric.unit == "%" else abs(best) / 100
    low = worst - ROOM * max(top - worst, least)
    low, high = sorted((sign * low, sign * (top + 0.05 * (top - low))))
    if metric.unit != "%":
        return low, high
    return max(low, 0.0 if sign > 0 else -0.5), min(high, 100.5)


def far(metric: Metric, value: float, best: float) -> bool:
    """Tell whether a curve ends so far behind the best that it sets no axis: it diverged."""
    gap = metric.points(metric.sign * (best - value), best)
    return gap >= (FAR if metric.unit == "%" else FAR_OF_OTHERS)


def capital(text: str) -> str:
    """Return a name with a capital, as the head of a column."""
    return f"{text[:1].upper()}{text[1:]}"


def epoch_axis(groups: Iterable[Setting]) -> str:
    """Name the axis of epochs: not "of retraining" where anything else is among the settings."""
    every = all(item.first.kind is Kind.RETRAIN for item in groups)
    return AXES["epoch"] if every else "epoch"


def lr_times(run: Run) -> list[float]:
    """Return the sum of the LR up to every recorded epoch; gaps had the LR that follows them."""
    times, total, done = [], 0.0, 0
    for record in run.epochs:
        total, done = total + record.lr * (record.epoch - done), record.epoch
        times.append(total)
    return times


def lr_drops(rates: Sequence[float]) -> tuple[int, ...]:
    """Return the places after which the LR is lower; none of an LR that falls nearly everywhere.

    A cosine has no drops that are worth a mark.
    """
    drops = tuple(k for k, (now, then) in enumerate(pairwise(rates)) if then < now)
    return drops if len(drops) * 3 <= len(rates) else ()


def curve(item: Setting, y: Y = "metric", x: X = "epoch") -> Curve | None:
    """Return a setting's curve over the epochs that most of its runs have; None without any.

    Args:
        item: The setting.
        y: "metric" (of the test, in its unit) or "loss" (training).
        x: "epoch", or "lr_time".
    """
    values: dict[int, list[float]] = {}
    places: dict[int, float] = {}
    lrs: dict[int, float] = {}
    for run in item.runs:
        if x == "epoch" and y == "metric" and run.epochs and run.start_metric is not None:
            values.setdefault(0, []).append(run.start_metric)
            places[0], lrs[0] = 0.0, run.epochs[0].lr
        for record, time in zip(run.epochs, lr_times(run), strict=True):
            value = _READ[y](record)
            if value is not None:
                values.setdefault(record.epoch, []).append(value)
                places.setdefault(record.epoch, record.epoch if x == "epoch" else time)
                lrs.setdefault(record.epoch, record.lr)
    most = max(map(len, values.values()), default=0)
    kept = [epoch for epoch in sorted(values) if len(values[epoch]) * 2 > most]
    if not kept:
        return None
    rates = [lrs[epoch] for epoch in kept]
    return Curve(
        item.label,
        tuple(places[epoch] for epoch in kept),
        tuple(statistics.fmean(values[epoch]) for epoch in kept),
        tuple(min(values[epoch]) for epoch in kept),
        tuple(max(values[epoch]) for epoch in kept),
        lr_drops(rates),
    )


def along(item: Setting, probe: str, scalar: str) -> tuple[Curve, str] | None:
    """Return a measured number along retraining, and its unit; None where it was not measured.

    Args:
        item: The setting.
        probe: The probe's name.
        scalar: The number's name.
    """
    values: dict[float, list[float]] = {}
    unit = ""
    for run in item.runs:
        for taken in run.measurements:
            found = taken.measurement.scalars.get(scalar)
            known = taken.measurement.probe == probe and taken.epoch is not None
            if known and found is not None and found.value is not None:
                values.setdefault(round(taken.epoch or 0.0, 3), []).append(found.value)
                unit = found.unit
    if len(values) < 2:
        return None
    places = sorted(values)
    found_curve = Curve(
        item.label,
        tuple(places),
        tuple(statistics.fmean(values[place]) for place in places),
        tuple(min(values[place]) for place in places),
        tuple(max(values[place]) for place in places),
    )
    return found_curve, unit


def measured_along(groups: Iterable[Setting]) -> list[tuple[str, str]]:
    """Return which numbers any setting has along retraining: (probe, scalar), in order."""
    taken: dict[str, set[str]] = {}
    for item in groups:
        for run in item.runs:
            for held in run.measurements:
                taken.setdefault(held.measurement.probe, set()).update(held.measurement.scalars)
    return [
        (probe, name)
        for probe, names in taken.items()
        for spec in description(probe).scalars
        if spec.drawn
        for name in sorted(names)
        if description(probe).spec(name) is spec
    ]


def axis_of(name: str, unit: str) -> str:
    """Return what stands along an axis: the name up to its first comma, for it must fit, and unit.

    The title has the whole name.
    """
    short = name.split(",")[0]
    return f"{short} [{unit}]" if unit else short


def name_of(probe: str, scalar: str) -> str:
    """Return a measured number's name in words."""
    said = description(probe)
    return said.label(scalar) if said.spec(scalar) else f"{said.title} {scalar}"


def better_sentence(probe: str, scalar: str) -> str:
    """Return " Higher is better.", " Lower is better.", or "" where neither is."""
    spec = description(probe).spec(scalar)
    return f" {capital(spec.better)} is better." if spec and spec.better else ""


def is_logarithmic(probe: str, scalar: str) -> bool:
    """Return whether a measured number stands on a logarithmic axis where it is above 0."""
    spec = description(probe).spec(scalar)
    return spec is None or spec.drawn != "linear"
