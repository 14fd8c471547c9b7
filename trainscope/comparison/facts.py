"""What comparing reads from a Run. What is not known is None."""

from __future__ import annotations

from functools import cache

from trainscope.errors import ScheduleError
from trainscope.records import Kind, Run
from trainscope.training.schedule import LRSchedule, from_rates, parse_schedule

SCRATCH = (Kind.SCRATCH_E, Kind.SCRATCH_B, Kind.RANDOM_REINIT)
"""Kinds that inherit no weights from a base model."""


def last_epoch(run: Run) -> int | None:
    """Return the epochs that were done, or planned where only the result is known."""
    return run.epochs[-1].epoch if run.epochs else run.total


def final_value(run: Run) -> float | None:
    """Return the metric's value in the last epoch, or the published accuracy of a run card."""
    if run.epochs:
        return run.final_metric
    reported = run.settings.get("accuracy") if run.source == "card" else None
    return float(reported) if reported is not None else None


def schedule_of(run: Run) -> LRSchedule | None:
    """Return the LR schedule as written, else as recorded where every epoch was; None if unknown.

    A schedule with one stage an epoch too many, or that cannot be read, is unknown.
    """
    if run.schedule is not None:
        total = run.total or (run.epochs[-1].epoch if run.epochs else None)
        return None if total is None else _parsed(run.schedule, total)
    rates = [record.lr for record in run.epochs]
    if not rates or run.epochs[-1].epoch != len(rates) or min(rates) < 0:
        return None
    return from_rates(rates, recorded=True)


@cache
def _parsed(text: str, total: int) -> LRSchedule | None:
    try:
        return parse_schedule(text, total, recorded=True)
    except ScheduleError:
        return None


def pretraining_epochs(run: Run) -> int | None:
    """Return the epochs that the base model was trained for."""
    if run.pretraining is not None and run.pretraining.epochs is not None:
        return run.pretraining.epochs
    return None if run.pruning is None else run.pruning.epoch


def speedup_of(run: Run) -> float | None:
    """Return dense FLOPs / pruned FLOPs; 1 for a dense network."""
    if run.pruning is not None:
        return run.pruning.speedup
    return 1.0 if run.kind is Kind.TRAIN else None


def ratio_of(run: Run) -> float | None:
    """Return the uniform ratio; 0 for a dense network."""
    if run.pruning is not None:
        return run.pruning.ratio
    return 0.0 if run.kind is Kind.TRAIN else None


def method_of(run: Run) -> str | None:
    """Return the criterion by name; "dense" for a dense network."""
    if run.pruning is not None:
        return run.pruning.criterion
    return "dense" if run.kind is Kind.TRAIN else None


def is_digest(text: str) -> bool:
    """Return whether a base model is named by the SHA-256 of its weights."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def write_base(value: str) -> str:
    """Return a base model's name, or the first twelve digits of its digest."""
    return value[:12] if is_digest(value) else value
