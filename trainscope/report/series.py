"""Curves of one setting, averaged over its seeds: what figures and the page draw."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainscope.comparison.settings import Setting
from trainscope.records import EpochRecord, Kind, Run
from trainscope.records.rows import LABELS, PROBES

Y = Literal["accuracy", "loss"]
X = Literal["epoch", "lr_time"]
AXES = {
    "epoch": "epoch of retraining",
    "lr_time": "LR time: sum of LR over the epochs",
    "accuracy": "top-1 test accuracy [%]",
    "loss": "training loss [nats]",
}
_READ: dict[str, Callable[[EpochRecord], float | None]] = {
    "accuracy": lambda record: record.test_accuracy,
    "loss": lambda record: record.train_loss,
}
ALONG = {
    ("jacobian", "mean_jsv"): "mean JSV",
    ("gradient", "norm"): "gradient norm",
    ("step_gradient", "mean_norm"): "gradient norm, mean over an epoch's steps",
    ("curvature", "top_eigenvalue"): "top Hessian eigenvalue",
    ("curvature", "trace"): "Hessian trace",
}
"""The numbers that are followed along retraining."""


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


def curve(item: Setting, y: Y = "accuracy", x: X = "epoch") -> Curve | None:
    """Return a setting's curve over the epochs that most of its runs have; None without any.

    Args:
        item: The setting.
        y: "accuracy" (test, percent) or "loss" (training, nats).
        x: "epoch", or "lr_time".
    """
    values: dict[int, list[float]] = {}
    places: dict[int, float] = {}
    lrs: dict[int, float] = {}
    for run in item.runs:
        if x == "epoch" and y == "accuracy" and run.epochs and run.start_accuracy is not None:
            values.setdefault(0, []).append(run.start_accuracy)
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
    taken = {
        (held.measurement.probe, name)
        for item in groups
        for run in item.runs
        for held in run.measurements
        for name in held.measurement.scalars
    }
    return [key for key in ALONG if key in taken]


def axis_of(name: str, unit: str) -> str:
    """Return what stands along an axis: the name up to its first comma, for it must fit, and unit.

    The title has the whole name.
    """
    short = name.split(",")[0]
    return f"{short} [{unit}]" if unit else short


def name_of(probe: str, scalar: str) -> str:
    """Return a measured number's name in words."""
    return ALONG.get((probe, scalar)) or LABELS.get(scalar, f"{PROBES.get(probe, probe)} {scalar}")
