"""What tells settings apart: all that decides what a run does but its seed."""

from __future__ import annotations

import json
from collections.abc import Hashable
from itertools import pairwise

from trainscope.comparison.facts import last_epoch, schedule_of
from trainscope.comparison.pipelines import stage_epochs, stage_schedule
from trainscope.comparison.settings import stated
from trainscope.records import Run
from trainscope.training.schedule import LRSchedule


def pruning_key(run: Run) -> Hashable:
    """Return what was pruned and how, without the action's own seed; None for a dense network."""
    pruning = run.pruning
    if pruning is None:
        return None
    layers: Hashable = None
    if pruning.ratio is None and pruning.action is not None:
        layers = tuple((layer.name, layer.after) for layer in pruning.action.layers)
    return (
        pruning.structure,
        pruning.scope,
        pruning.criterion,
        pruning.ratio,
        None if pruning.speedup is None else round(pruning.speedup, 3),
        pruning.epoch,
        pruning.plan,
        stage_epochs(run),
        stage_schedule(run),
        layers,
    )


def schedule_key(run: Run) -> Hashable:
    """Return the LR schedule, however it is written, and its epochs."""
    schedule = schedule_of(run)
    if schedule is not None:
        return tuple((stage.start, stage.lr) for stage in schedule.stages), schedule.total
    return run.schedule, run.total or last_epoch(run)


def settings_key(run: Run) -> str:
    """Return the optimizer settings."""
    return json.dumps(stated(run), sort_keys=True, default=str)


def extra_epochs(longer: LRSchedule, shorter: LRSchedule) -> int | None:
    """Return by how much a first LR stage was lengthened, all else being the same; else None."""
    extra = longer.total - shorter.total
    if extra <= 0 or [s.lr for s in longer.stages] != [s.lr for s in shorter.stages]:
        return None
    moved = [a.start - b.start for a, b in zip(longer.stages, shorter.stages, strict=True)]
    held = next(
        (k for k, (a, b) in enumerate(pairwise(shorter.stages), 1) if b.lr < a.lr), len(moved)
    )
    return extra if moved == [0] * held + [extra] * (len(moved) - held) else None
