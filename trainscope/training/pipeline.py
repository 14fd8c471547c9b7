"""The pruning pipeline, whole: pretrain to the pruning epoch, act, and what is retrained then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainscope.errors import ScheduleError
from trainscope.networks import Network, open_checkpoint
from trainscope.records import Kind
from trainscope.sparsify import Action, sparsify
from trainscope.training.folder import CHECKPOINT
from trainscope.training.job import Job
from trainscope.training.jobs import retraining_job, run_beside
from trainscope.training.plans import PruningPlan
from trainscope.training.recipe import Recipe
from trainscope.training.runner import Watch
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings
from trainscope.training.stage import PruningStage, pruning_stage
from trainscope.training.staging import Staged, run_stage
from trainscope.training.stem import epoch_folder, pretrain


def pruning_epoch(
    recipe: Recipe, first: Job, action: Action, speedup: float | None = None
) -> tuple[int, float | None]:
    """Return the epoch after which the action happens, and the speedup that a slash divides it by.

    The speedup of a uniform ratio does not depend on the weights, so that the untrained network
    tells it; under a global ranking this is an estimate, which `speedup` overrides.

    Args:
        recipe: With or without a slash.
        first: The pretraining.
        action: The sparsifying action.
        speedup: Of a recipe with a slash; by default the action's own.

    Raises:
        ScheduleError: The recipe has no pretraining, or its pruning epoch lies beyond it.
    """
    if recipe.squeezed and speedup is None:
        network, data = first.network, first.dataset
        done = sparsify(network.module, action, network.inputs, data=data)
        speedup = done.record.speedup
    epoch, last = recipe.pruning_epoch(speedup), first.schedule.total
    if epoch is None:
        raise ScheduleError(
            f"recipe '{recipe.text}' has no pretraining: write one like P60{recipe.text}"
        )
    if epoch > last:
        raise ScheduleError(
            f"the pruning epoch {epoch} lies beyond the {last} epochs of pretraining"
        )
    return epoch, speedup if recipe.squeezed else None


def pipeline_job(
    first: Job,
    action: Action,
    schedule: LRSchedule,
    *,
    folder: Path,
    epoch: int,
    settings: Settings | None = None,
    weights: Kind = Kind.RETRAIN,
    plan: PruningPlan | None = None,
    staging: Callable[[PruningStage], Staged] | None = None,
    opened: Callable[[Path], Network] = open_checkpoint,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Job:
    """Pretrain to the pruning epoch, act, and return the retraining that follows.

    Args:
        first: The pretraining, with its whole schedule; retraining has its data.
        action: The sparsifying action.
        schedule: The learning rates of retraining.
        folder: Of the pretraining, which recipes share and which goes on where it stopped.
        epoch: The pruning epoch.
        settings: Of retraining; by default those of the pretraining.
        weights: As `retraining_job` takes it; a winning ticket is rewound to epoch 0.
        plan: The pruning schedule; None prunes at once.
        staging: Does the pruning stage of a plan; by default in a folder beside the pretraining's.
        opened: Opens the checkpoints of the pretraining.
        device: Where to pretrain, as torch names it.
        watch: What looks on at the pretraining.

    Raises:
        TrainscopeError: The pretraining diverged or is another, or the action cannot be done.
    """
    kept = pretrain(first, folder, epoch, device=device, watch=watch) / CHECKPOINT
    base, initial = opened(kept), opened(epoch_folder(folder, 0) / CHECKPOINT)
    settings, staged = settings or first.settings, None
    if plan is not None:
        stage = pruning_stage(
            *(base, first.dataset, action, plan, schedule, settings),
            weights=weights,
            initial=initial,
        )
        if staging is None:
            staged = run_stage(stage, folder.parent / f"stage-{stage.key}", device=device)
        else:
            staged = staging(stage)
    job, _ = retraining_job(
        base,
        first.dataset,
        action,
        schedule,
        settings,
        pretraining=run_beside(kept, base),
        weights=weights,
        initial=initial,
        staged=staged,
    )
    return job
