"""Retrainings of one base model under several recipes and seeds, after one sparsifying action."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from trainscope.data import Dataset
from trainscope.networks import Network, flops
from trainscope.networks.threads import suited_threads
from trainscope.records import Run, RunStatus
from trainscope.sparsify import Action
from trainscope.training.job import key_of
from trainscope.training.jobs import retraining_job
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import run_job
from trainscope.training.settings import Settings


def run_grid(
    base: Network,
    dataset: Dataset,
    action: Action,
    *,
    recipes: Iterable[str],
    seeds: Sequence[int],
    folder: Path,
    tell: Callable[[str], None] | None = None,
) -> list[Run]:
    """Retrain under every recipe with every seed; what an earlier call finished is not repeated.

    Args:
        base: The pretrained network; not touched.
        dataset: What it is retrained on.
        action: The sparsifying action, the same in all.
        recipes: Of retraining, as written: "F12,1e-2".
        seeds: Of each recipe.
        folder: Every run gets a folder in it, named by its settings.
        tell: Told what is begun.

    Raises:
        KeyboardInterrupt: A run was interrupted. Its state is kept: the same call goes on there.
    """
    runs = []
    with suited_threads(flops(base.module, base.inputs)):
        for recipe in recipes:
            schedule = parse_recipe(recipe).schedule()
            for seed in seeds:
                job, _ = retraining_job(base, dataset, action, schedule, Settings(seed=seed))
                if tell is not None:
                    tell(f"retraining, {recipe}, seed {seed}: {schedule}, {schedule.total} epochs")
                run = run_job(job, folder / f"retrain-{key_of(job.frozen())}")
                if run.status is RunStatus.INTERRUPTED:
                    raise KeyboardInterrupt
                runs.append(run)
    return runs
