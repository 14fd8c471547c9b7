"""A job that trains in a second: a narrow network on a few digits. Importable by processes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from trainscope.data import Dataset, TensorSplit, load
from trainscope.records import Run
from trainscope.sparsify import Action
from trainscope.training.job import Job
from trainscope.training.jobs import retraining_job, training_job
from trainscope.training.plans import GReg2
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import Watch, run_job
from trainscope.training.settings import Settings
from trainscope.training.stage import pruning_stage
from trainscope.training.staging import Staged, run_stage


def few_digits(train: int = 96, test: int = 60) -> Dataset:
    """Return the first digits."""
    whole = load("digits", (1, 8, 8))

    def first(split: TensorSplit, count: int) -> TensorSplit:
        return replace(split, inputs=split.inputs[:count], labels=split.labels[:count])

    return replace(whole, train=first(whole.train, train), test=first(whole.test, test))


def pretrained(recipe: str = "P4F4,1e-2", **settings) -> Job:
    """Return the pretraining of a recipe."""
    return training_job(
        "digits_resnet", few_digits(), parse_recipe(recipe).pretraining(), Settings(**settings)
    )


def retraining(recipe: str = "F6,1e-2", structure: str = "unstructured", **settings) -> Job:
    """Return the retraining of an untrained network pruned at 0.8."""
    start = pretrained()
    job, _ = retraining_job(
        start.network,
        start.dataset,
        Action(structure=structure, ratio=0.8),
        parse_recipe(recipe).schedule(),
        Settings(batch_size=32, **settings),
    )
    return job


def hook():
    """Return a hook with a probe every other epoch."""
    from trainscope.data import pin
    from trainscope.probes.gradient import Gradient
    from trainscope.probes.hooks import ProbeHook
    from trainscope.probes.when import every_epochs

    return ProbeHook([Gradient()], when=every_epochs(2), data=pin(few_digits(), 32))


def run(folder: Path, pause: float = 0.0, started: Path | None = None) -> Run:
    """Run the retraining in a folder with one thread, with a hook.

    Args:
        folder: Of the run.
        pause: Seconds to wait after every step.
        started: Touched when training goes on.
    """
    torch.set_num_threads(1)
    watch = Watch(
        (hook(),),
        on_start=lambda *_: None if started is None else started.touch(),
        on_step=lambda *_: time.sleep(pause),
    )
    return run_job(retraining("F16,1e-2", clip=1.0), folder, watch=watch)


def without_seconds(run: Run) -> dict:
    """Return the record of a Run without what a clock said."""
    raw = run.as_dict()
    for record in raw["epochs"]:
        record["seconds"] = None
    for taken in raw["measurements"]:
        taken["cost"]["seconds"] = None
    return raw


def prune_over(folder: Path, pause: float = 0.0, started: Path | None = None) -> Staged:
    """Do a pruning stage of GReg-2 in a folder with one thread; the arguments as `run` has them."""
    torch.set_num_threads(1)
    watch = Watch(
        on_start=lambda *_: None if started is None else started.touch(),
        on_step=lambda *_: time.sleep(pause),
    )
    start, schedule = pretrained(), parse_recipe("F2,1e-2").schedule()
    plan, settings = GReg2(16, every=1), Settings(batch_size=32, optimizer="adamw", clip=1.0)
    stage = pruning_stage(
        *(start.network, start.dataset, Action(ratio=0.7), plan, schedule, settings)
    )
    return run_stage(stage, folder, watch=watch)
