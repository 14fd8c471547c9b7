"""The planned retraining, as far as the estimate needs it: its first LR stage and its decays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.stage import first_stage
from trainscope.errors import ScheduleError


@dataclass(frozen=True)
class Plan:
    """A planned retraining.

    Attributes:
        first: Epochs of the first LR stage, to which epochs would be added.
        lr: Its LR.
        tail: LR time of the decays: the sum of their LRs over `lr`, in epochs.
    """

    first: float
    lr: float
    tail: float


def read_plan(schedule: str, total: float | None) -> Plan:
    """Read `0:1e-3,30:1e-4,45:1e-5` and its total of epochs.

    The first stage ends where the LR first falls, so that a warmup belongs to it.

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
    ends = [*starts[1:], float(total)]
    decay = next((i for i in range(1, len(stages)) if stages[i][1] < stages[i - 1][1]), len(stages))
    peak = max(lr for _, lr in stages[:decay])
    if not peak:
        raise ScheduleError(f"the LR schedule '{schedule}' has no positive LR in its first stage")
    spans = list(zip(stages, ends, strict=True))[decay:]
    tail = sum(lr * (end - start) for (start, lr), end in spans) / peak
    return Plan(first=ends[decay - 1], lr=peak, tail=tail)


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
    """Return the schedule that a curve has run, as written, and its total; None without decays."""
    stage = first_stage(curve)
    if stage is None or not stage.decayed:
        return None
    starts = np.append(0.0, curve.lr_epochs[:-1])
    new = np.append(True, np.diff(curve.lr) != 0)
    stages = zip(starts[new].tolist(), curve.lr[new].tolist(), strict=True)
    return ",".join(f"{start:g}:{lr!r}" for start, lr in stages), float(curve.lr_epochs[-1])
