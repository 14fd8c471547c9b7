"""`trainscope pipeline`: pretrain to the pruning epoch, act, retrain."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from trainscope.cli.action_options import ActionOptions, action_options
from trainscope.cli.measuring_options import MeasuringOptions
from trainscope.cli.network_options import DATA_HELP, NewNetworkOptions
from trainscope.cli.options import Place, task_option
from trainscope.cli.pipeline_grid import STORE, Pipeline, refuse_single, run, study_of
from trainscope.cli.printing import remark
from trainscope.cli.retrain import WEIGHTS
from trainscope.cli.running import (
    RunOptions,
    kept_on_interrupt,
    run_and_show,
    staging,
    watching,
)
from trainscope.cli.schedule_options import (
    PlanOptions,
    ShapeOptions,
    plan_options,
    shape_options,
)
from trainscope.cli.sections import Sectioned
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.training_options import build_settings, lora_options, training_options


@click.command("pipeline", cls=Sectioned)
@click.option(
    "--recipe",
    "recipes",
    required=True,
    multiple=True,
    help="Like P60F60,1e-3, or squeezed: P30/F90,1e-2. Several are the runs of a study.",
)
@click.option("--arch", default="digits_resnet", show_default=True, help="The architecture's name.")
@click.option("--model", help="The function that builds the network: package.module:factory.")
@click.option("--data", default="digits", show_default=True, help=DATA_HELP)
@click.option("--input-shape", help="CxHxW to which a folder of images is resized.")
@click.option("--download", is_flag=True, help="Fetch the data where it is missing.")
@task_option
@action_options
@click.option(
    "--weights",
    type=click.Choice(list(WEIGHTS)),
    default="inherited",
    show_default=True,
    help="Keep the trained weights; rewind the survivors to epoch 0; or draw new ones.",
)
@click.option(
    "--speedup", type=float, help="For a squeezed recipe; by default that of the action itself."
)
@click.option(
    "--stem",
    type=Place(path_type=Path),
    help="Folder of the pretraining that recipes share; by default runs/stem-NAME.",
)
@plan_options
@shape_options
@training_options
@lora_options
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Retrain with so many seeds, from --seed on: the runs of a study.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that do these runs.")
@click.option(
    "--store",
    help=f"Where the study of several recipes or seeds is kept; by default {STORE}, with the "
    "runs in the folder runs beside it.",
)
def command(
    recipes: tuple[str, ...],
    weights: str,
    speedup: float | None,
    stem: Path | None,
    seeds: int | None,
    workers: int | None,
    store: str | None,
    **options: Any,
) -> None:
    """Pretrain to the pruning epoch, apply the sparsifying action, and retrain.

    The pretraining is kept in a folder of its own and shared: P30F90, P60F60 and P90F30 pretrain
    once. Killed or interrupted, the same command goes on where it stopped. With several --recipe,
    with --seeds, --workers or --store the runs are those of a study, which ends in a table.
    """
    from trainscope.networks.device import find_device

    find_device(options["device"])
    running, measuring = RunOptions.taken(options), take(MeasuringOptions, options)
    network = take(NewNetworkOptions, options)
    asked = Pipeline(
        network=replace(network, arch=None) if network.model else network,
        action=take(ActionOptions, options),
        weights=weights,
        plan=take(PlanOptions, options),
        shape=take(ShapeOptions, options),
        settings=build_settings(options),
        measuring=measuring,
    )
    check_all_taken(options)
    if len(recipes) > 1 or seeds or workers or store:
        refuse_single()
        study = study_of(asked, recipes, seeds or 1, store or STORE)
        run(study, workers=workers, device=running.device)
    else:
        _run_one(asked, recipes[0], speedup, stem, running)


def _run_one(
    asked: Pipeline, recipe: str, speedup: float | None, stem: Path | None, running: RunOptions
) -> None:
    """Pretrain, act and retrain in folders, without a study."""
    from trainscope.diagnosis.opening import trial_on
    from trainscope.errors import ScheduleError
    from trainscope.networks import open_checkpoint
    from trainscope.records import Kind
    from trainscope.training.job import key_of
    from trainscope.training.jobs import training_job
    from trainscope.training.pipeline import pipeline_job, pruning_epoch
    from trainscope.training.recipe import parse_recipe
    from trainscope.training.stage import check_plan

    settings, name = asked.settings, asked.network.name
    schedule = asked.shape.of_recipe(recipe)
    read = parse_recipe(recipe)
    pretraining = asked.shape.pretraining(read)
    if read.pretrain is None or pretraining is None:
        raise ScheduleError(f"recipe '{recipe}' has no pretraining: write one like P60{recipe}")
    action, over = asked.action.build(settings.seed), asked.plan.build()
    if over is not None:
        check_plan(over, action, settings)
    dataset = asked.network.open_data()
    first = training_job(name, dataset, pretraining, replace(settings, lora=None))
    hook, watched = asked.measuring.hook(dataset, settings)
    epoch, divided = pruning_epoch(read, first, action, speedup)
    if divided is not None:
        remark(f"pruning epoch {epoch} ({read.pretrain} / {divided:.4g})")
    folder = stem or Path("runs") / f"stem-{key_of(first.frozen())}"
    with kept_on_interrupt(folder), watching(None, f"pretraining {name}") as watch:
        job = pipeline_job(
            first,
            action,
            schedule,
            folder=folder,
            epoch=epoch,
            settings=settings,
            weights=Kind(WEIGHTS[asked.weights]),
            plan=over,
            staging=staging(asked.plan.stage, running.device, name),
            opened=partial(open_checkpoint, model=asked.network.model, trial=trial_on(dataset)),
            device=running.device,
            watch=watch,
        )
    for note in job.notes:
        remark(note)
    run_and_show(replace(job, watched=watched), running, hook, f"retraining {name}")
