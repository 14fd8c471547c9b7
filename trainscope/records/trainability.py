"""Trainability accuracy of a Run: over which epochs it is, and why it is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from trainscope.errors import RecordError
from trainscope.records.metric import ACCURACY, Metric
from trainscope.records.text import count_of

if TYPE_CHECKING:
    from trainscope.records.epoch import EpochRecord
    from trainscope.records.run import Run

_STAGE = re.compile(r"(\d{1,9}):([0-9.]+(?:[eE][-+]?\d{1,3})?)")
_ENDS = {"interrupted": "was interrupted after", "diverged": "diverged within"}


@dataclass(frozen=True, slots=True)
class Trainability:
    """The mean test value of the first N epochs, or why there is none.

    Attributes:
        value: In the metric's unit; None where the value of any of the N epochs is not known.
        epochs: N; None where no first LR stage says it.
        note: What a reader should know of the value, or why it is None; "" for nothing.
        metric: What was tested.
    """

    value: float | None
    epochs: int | None
    note: str = ""
    metric: Metric = ACCURACY

    @property
    def name(self) -> str:
        """Return "trainability accuracy", or "trainability" and the name of another metric."""
        return trainability_name(self.metric)

    def __str__(self) -> str:
        """Return the value, N and the note."""
        value = "unknown" if self.value is None else self.metric.written(self.value, 2)
        over = "" if self.epochs is None else f", N = {self.epochs}"
        return f"{value}{over}" + (f" ({self.note})" if self.note else "")


def trainability_name(metric: Metric) -> str:
    """Return what the mean of a metric over the first epochs is called."""
    return "trainability accuracy" if metric.is_accuracy else f"trainability {metric.name}"


def trainability(run: Run, epochs: int | None) -> Trainability:
    """Return the mean test value of the first N epochs of a run.

    Args:
        run: The run.
        epochs: N; None for the length of the first LR stage.

    Raises:
        RecordError: N is below 1.
    """
    if epochs is not None and epochs < 1:
        name = trainability_name(run.metric)
        raise RecordError(f"{name} is over at least one epoch, not {epochs}")
    value, n, note = _mean(run, epochs)
    return Trainability(value, n, note, run.metric)


def _mean(run: Run, epochs: int | None) -> tuple[float | None, int | None, str]:
    """Return the mean, N and the note."""
    if not run.epochs:
        return None, epochs, "no epoch was recorded"
    last = run.epochs[-1].epoch
    n, why = (epochs, "") if epochs is not None else _stage(run)
    if n is None:
        return None, None, why
    if last < n:
        what = "the first LR stage has" if epochs is None else "N is"
        ended = _ENDS.get(str(run.status), "ends with")
        note = (
            f"{what} {count_of(n, 'epoch')} and the run {ended} epoch {last}: "
            f"N may be {last} at most"
        )
        return None, n, note
    first = [record for record in run.epochs if record.epoch <= n]
    known = [r.test_metric for r in first if r.test_metric is not None]
    if len(known) < n:
        return (
            None,
            n,
            f"the test {run.metric.name} is known after {len(known)} of the first "
            f"{count_of(n, 'epoch')}, and the mean is over all of them",
        )
    return math.fsum(known) / n, n, why or _within(first)


def _stage(run: Run) -> tuple[int | None, str]:
    """Return the length of the first LR stage and a note, or None and why there is none."""
    records = run.epochs
    rates = [record.lr for record in records]
    planned = _planned(run)
    falls = [k for k, (before, after) in enumerate(pairwise(rates), 1) if after < before]
    if not falls:
        length = records[-1].epoch if planned is None else max(planned, records[-1].epoch)
        return length, _within(records) or "the LR never decays, so N is all epochs"
    peak = rates[falls[0] - 1]
    if len(rates) > 3 and falls[1:2] == [falls[0] + 1] and rates.count(peak) == 1:
        return None, "the LR falls from epoch to epoch, so no first LR stage says N: give it"
    before, after = records[falls[0] - 1].epoch, records[falls[0]].epoch
    # Between two epochs that were recorded, the plan knows where the decay was.
    inside = planned is not None and before <= planned < after
    return (planned if inside else before), _within(records[: falls[0]])


def _within(records: Sequence[EpochRecord]) -> str:
    """Say how the LR changes within the epochs of a mean."""
    rates = [record.lr for record in records]
    rises = [k for k, (before, after) in enumerate(pairwise(rates), 1) if after > before]
    if any(after < before for before, after in pairwise(rates)):
        return "the LR decays within these epochs"
    if rises:
        return f"the LR warms up over the first {records[rises[-1] - 1].epoch} of these epochs"
    return ""


def _planned(run: Run) -> int | None:
    """Return the epochs before the first decay that the LR schedule plans, if that is known."""
    stages = _STAGE.findall(run.schedule or "")
    if not stages or ",".join(":".join(stage) for stage in stages) != run.schedule:
        return None
    try:
        pairs = [(int(start), float(lr)) for start, lr in stages]
    except ValueError:
        return None
    decays = [after[0] for before, after in pairwise(pairs) if after[1] < before[1]]
    return decays[0] if decays else run.total
