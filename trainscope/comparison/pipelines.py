"""What the whole pruning pipeline took: pretraining, the pruning stage, and retraining.

The pruning stage lies between the base model and retraining: regularised or gradual pruning trains
in it, one-shot pruning does not, so its cost is 0 epochs. Wang et al. (2023), Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from trainscope.comparison.facts import (
    SCRATCH,
    last_epoch,
    pretraining_epochs,
    schedule_of,
    speedup_of,
)
from trainscope.errors import ScheduleError
from trainscope.records import Kind, Run
from trainscope.records.origin import ONE_SHOT
from trainscope.training.schedule import MAX_EPOCHS, LRSchedule, parse_schedule

Stages = tuple[tuple[tuple[int, float], ...], int]
"""An LR schedule: first epoch and LR of every stage, and the epochs in all."""
DIGITS = 6
"""Learning rates that agree in so many digits are one: 0.1 * 0.1 is not 0.01 in floating point."""


def direct(run: Run) -> bool:
    """Return whether one training is the whole pipeline: no base model is pruned."""
    return run.kind in SCRATCH or run.kind is Kind.TRAIN


def stage_epochs(run: Run) -> int | None:
    """Return the epochs of the pruning stage; 0 where pruning takes no training."""
    if direct(run):
        return 0
    if run.pruning is None:
        return None
    if run.pruning.stage_epochs is None and run.pruning.plan == ONE_SHOT:
        return 0
    return run.pruning.stage_epochs


def stage_flops(run: Run) -> int | None:
    """Return the multiply-adds of the pruning stage; 0 where pruning takes no training."""
    stated = None if direct(run) or run.pruning is None else run.pruning.stage_flops
    return 0 if stated is None and stage_epochs(run) == 0 else stated


def stage_schedule(run: Run) -> Stages | None:
    """Return the LR schedule of the pruning stage, one without stages where it has no epochs."""
    epochs = stage_epochs(run)
    if not epochs:
        return None if epochs is None else ((), 0)
    return _read(None if run.pruning is None else run.pruning.stage_schedule, epochs)


def retraining_schedule(run: Run) -> Stages | None:
    """Return the LR schedule of retraining, however it is written."""
    found = schedule_of(run)
    return None if found is None else joined([_plain(found, found.total)])


def overall_schedule(run: Run) -> Stages | None:
    """Return the LR schedule from the first epoch of pretraining to the last of retraining."""
    if direct(run):
        return retraining_schedule(run)
    before, epochs = run.pretraining, pretraining_epochs(run)
    if before is None or epochs is None:
        return None
    first = _read(before.schedule, epochs) if epochs else ((), 0)
    parts = [first, stage_schedule(run), retraining_schedule(run)]
    known = [part for part in parts if part is not None]
    return joined(known) if len(known) == len(parts) else None


def joined(parts: Sequence[Stages]) -> Stages:
    """Return LR schedules one after another; equal neighbours share a stage."""
    stages: list[tuple[int, float]] = []
    done = 0
    for held, total in parts:
        for start, lr in held:
            lr = float(f"{lr:.{DIGITS}g}")
            if not stages or stages[-1][1] != lr:
                stages.append((done + start, lr))
        done += total
    return tuple(stages), done


def total_epochs(run: Run, *, pretraining: bool = True) -> int | None:
    """Return the epochs of pretraining, the pruning stage and retraining together.

    Args:
        run: A run.
        pretraining: Count it; False where all runs share a base model, so that it cancels.
    """
    done = last_epoch(run)
    if direct(run):
        return done
    before = pretraining_epochs(run) if pretraining else 0
    return _sum(before, stage_epochs(run), done)


def total_flops(run: Run, *, pretraining: bool = True) -> int | None:
    """Return the multiply-adds spent on all three together, as they were counted or stated."""
    if direct(run):
        return run.flops
    counted = None if run.pretraining is None else run.pretraining.flops
    return _sum(counted if pretraining else 0, stage_flops(run), run.flops)


def dense_epochs(run: Run, *, pretraining: bool = True) -> float | None:
    """Return the FLOPs of all three together, in epochs of the dense network.

    An epoch of the pruned network costs 1 / speedup of one. What a pruning stage of some epochs
    costs is not known from them: the network gets smaller on its way, or does not.
    """
    done, speedup = last_epoch(run), speedup_of(run)
    if done is None or speedup is None:
        return None
    if direct(run):
        return done / speedup
    before = pretraining_epochs(run) if pretraining else 0
    if before is None or stage_epochs(run) != 0 or stage_flops(run) != 0:
        return None
    return before + done / speedup


def dense_epoch_flops(run: Run) -> float:
    """Return the multiply-adds of one epoch of pretraining; 0 where they are not known."""
    before, epochs = run.pretraining, pretraining_epochs(run)
    return before.flops / epochs if before is not None and before.flops and epochs else 0.0


def _sum(*parts: int | None) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


@cache
def _read(text: str | None, epochs: int) -> Stages | None:
    """Return the first so many epochs of a schedule as written; None where it cannot be read."""
    try:
        if text is None:
            return None
        return joined([_plain(parse_schedule(text, MAX_EPOCHS, recorded=True), epochs)])
    except ScheduleError:
        return None


def _plain(schedule: LRSchedule, total: int) -> Stages:
    return tuple((stage.start, stage.lr) for stage in schedule.stages if stage.start < total), total
