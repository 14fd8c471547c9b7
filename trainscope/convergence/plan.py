"""The planned retraining, as far as the estimate needs it: its first LR stage and its decays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainscope.convergence.axis import Axis
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.estimate import THE_SCHEDULE, THE_STAGE
from trainscope.convergence.stage import FEW, first_stage, held
from trainscope.convergence.track import Track
from trainscope.errors import ScheduleError

EPOCHS = Axis(1.0, np.array([]))
"""The axis as it is written."""
ANNEALED = 0.25
"""Share of its peak at which a falling LR may be at its end."""
HELD = 0.15
"""Share of a plan for which its largest LR is held, above which it has a first stage."""


@dataclass(frozen=True)
class Plan:
    """A planned retraining.

    Attributes:
        first: Epochs of the first LR stage, to which epochs would be added.
        lr: Its LR.
        tail: LR time of the decays: the sum of their LRs over `lr`, in epochs.
        track: All its LRs.
        unit: What one of all these epochs stands for, in those that were planned.
    """

    first: float
    lr: float
    tail: float
    track: Track
    unit: float = 1.0

    @property
    def total(self) -> float:
        """Return its epochs."""
        return float(self.track.edges[-1])

    @property
    def staged(self) -> bool:
        """Return whether it holds its first LR, after a warm-up, and then decays: can be longer.

        A cosine, whose LR falls from the start, is made longer by stretching all of it.
        """
        return self.first - self._rise >= HELD * self.total

    @property
    def _rise(self) -> float:
        """Return where the largest LR begins, epochs."""
        top = int(np.argmax(self.track.rates))
        return float(self.track.edges[top - 1]) if top else 0.0

    @property
    def lengthens(self) -> str:
        """Return what extra epochs are added to."""
        return THE_STAGE if self.staged else THE_SCHEDULE

    def longer(self, extra: float) -> Track:
        """Return its LRs with more epochs in the first stage, or, of no stage, stretched by them.

        A warm-up stays as long as it is.

        Args:
            extra: Epochs, 0 or more.
        """
        edges = self.track.edges
        if self.staged:
            return Track(np.where(edges >= self.first, edges + extra, edges), self.track.rates)
        rise = self._rise
        later = rise + (edges - rise) * (1 + extra / (self.total - rise))
        return Track(np.where(edges > rise, later, edges), self.track.rates)


def read_plan(schedule: str, total: float | None, axis: Axis = EPOCHS) -> Plan:
    """Read `0:1e-3,30:1e-4,45:1e-5` and its total of epochs.

    The first stage ends where the LR first falls, so that a warmup belongs to it.

    Args:
        schedule: The first epoch and the LR of every stage.
        total: Epochs.
        axis: What it is to be told over.

    Raises:
        ScheduleError: The schedule is not of that form, or the total is missing or too small.
    """
    stages = [_stage(part, schedule) for part in schedule.split(",")]
    starts = [start for start, _ in stages]
    if starts[0] != 0 or any(not a < b < float("inf") for a, b in pairwise(starts)):
        raise ScheduleError(f"the epochs of the LR schedule '{schedule}' must ascend from 0")
    if total is None or not starts[-1] < total < float("inf"):
        raise ScheduleError(
            f"the LR schedule '{schedule}' needs a total of more than {starts[-1]:g} epochs"
        )
    ends = axis.places(np.array([*starts[1:], total], dtype=np.float64))
    decay = next((i for i in range(1, len(stages)) if stages[i][1] < stages[i - 1][1]), len(stages))
    peak = max(lr for _, lr in stages[:decay])
    if not peak:
        raise ScheduleError(f"the LR schedule '{schedule}' has no positive LR in its first stage")
    rates = np.array([lr for _, lr in stages])
    tail = float((rates * np.diff(ends, prepend=0.0))[decay:].sum()) / peak
    track = Track(ends, rates).joined()
    return Plan(first=float(ends[decay - 1]), lr=peak, tail=tail, track=track, unit=axis.unit)


def _stage(part: str, schedule: str) -> tuple[float, float]:
    """Return the first epoch and the LR of one stage."""
    epoch, _, lr = part.partition(":")
    try:
        stage = float(epoch), float(lr)
    except ValueError as error:
        raise ScheduleError(
            f"'{part}' in the LR schedule '{schedule}' is not EPOCH:LR, like 30:1e-4"
        ) from error
    if not 0 <= stage[1] < float("inf"):
        raise ScheduleError(f"'{part}' in the LR schedule '{schedule}' has no positive LR")
    return stage


def own_schedule(curve: LearningCurve) -> tuple[str, float] | None:
    """Return the schedule that a curve has run, as written, and its total; None without decays.

    An LR that has fallen all along and is above `ANNEALED` of its peak at the last record is on its
    way down: the rest of that schedule is not known, and so none is returned.
    """
    stage = first_stage(curve)
    if stage is None or not stage.decayed:
        return None
    falling = held(curve, stage) < FEW and len(np.unique(curve.lr)) > len(curve.lr) / 2
    if falling and curve.lr[-1] > ANNEALED * curve.lr.max():
        return None
    starts = np.append(0.0, curve.lr_epochs[:-1])
    new = np.append(True, np.diff(curve.lr) != 0)
    stages = zip(starts[new].tolist(), curve.lr[new].tolist(), strict=True)
    return written(list(stages)), float(curve.lr_epochs[-1])


def written(stages: list[tuple[float, float]]) -> str:
    """Write stages as (first epoch, LR) so that `read_plan` reads the same numbers."""
    return ",".join(f"{start:.15g}:{lr!r}" for start, lr in stages)
