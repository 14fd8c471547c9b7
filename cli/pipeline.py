"""`trainscope pipeline`: pretrain to the pruning epoch, act, retrain."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from trainscope.cli.options import Place, action_options, build_action, task_option
from trainscope.cli.pipeline_grid import STORE, refuse_single, run, study_of
from trainscope.cli.printing import remark
from trainscope.cli.retrain import ACTION, WEIGHTS
from trainscope.cli.running import (
    MEASURING,
    build_hook,
    kept_on_interrupt,
    run_and_show,
    staging,
    watching,
)
from trainscope.cli.schedule_options import (
    build_plan,
    build_pretraining,
    build_schedule,
    plan_options,
    shape_options,
)
from trainscope.cli.sections import Sectioned
from trainscope.cli.tracking import take_tracking
from trainscope.cli.train import DATA_HELP, named_architecture
from trainscope.cli.training_options import (
    build_settings,
    lora_options,
    open_dataset,
    training_options,
)


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
    arch: str,
    model: str | None,
    data: str,
    input_shape: str | None,
    download: bool,
    task: str | None,
    weights: str,
    speedup: float | None,
    stem: Path | None,
    plan: str | None,
    stage: Path | None,
    output: Path | None,
    device: str,
    as_json: bool,
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
    from trainscope.diagnosis.opening import trial_on
    from trainscope.errors import ScheduleError
    from trainscope.networks import open_checkpoint
    from trainscope.networks.device import find_device
    from trainscope.records import Kind
    from trainscope.training.job import key_of
    from trainscope.training.jobs import training_job
    from trainscope.training.pipeline import pipeline_job, pruning_epoch
    from trainscope.training.recipe import parse_recipe
    from trainscope.training.stage import check_plan

    find_device(device)
    tracking = take_tracking(options)
    measuring = {name: options.pop(name) for name in MEASURING}
    asked = {name: options.pop(name) for name in ACTION}
    settings = build_settings(options)
    if len(recipes) > 1 or seeds or workers or store:
        refuse_single(click.get_current_context())
        name, shape = named_architecture(None if model else arch, model, None)
        open_dataset(data, shape, download=download, task=task)
        study = study_of(
            recipes=recipes,
            architecture=name if model is None else model,
            data=data,
            task=task,
            action=build_action(**asked, seed=settings.seed),
            weights=weights,
            settings=settings,
            seeds=seeds or 1,
            store=store or STORE,
            plan=plan,
            norms=measuring["norms"],
            probes=measuring["probes"],
            probe_epochs=measuring["probe_epochs"],
            samples=measuring["samples"],
            **options,
        )
        run(study, workers=workers, device=device)
        return
    (recipe,) = recipes
    schedule = build_schedule(recipe=recipe, schedule=None, epochs=None, **options)
    read = parse_recipe(recipe)
    pretraining = build_pretraining(read, options["pretrain_schedule"], options["pretrain_epochs"])
    if read.pretrain is None or pretraining is None:
        raise ScheduleError(f"recipe '{recipe}' has no pretraining: write one like P60{recipe}")
    action = build_action(**asked, seed=settings.seed)
    over = build_plan(plan, stage)
    if over is not None:
        check_plan(over, action, settings)
    name, shape = named_architecture(None if model else arch, model, input_shape)
    dataset = open_dataset(data, shape, download=download, task=task)
    first = training_job(name, dataset, pretraining, replace(settings, lora=None))
    hook, watched = build_hook(dataset, settings, **measuring)
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
            weights=Kind(WEIGHTS[weights]),
            plan=over,
            staging=staging(stage, device, name),
            opened=partial(open_checkpoint, model=model, trial=trial_on(dataset)),
            device=device,
            watch=watch,
        )
    for note in job.notes:
        remark(note)
    run_and_show(
        replace(job, watched=watched),
        output=output,
        device=device,
        as_json=as_json,
        hook=hook,
        name=f"retraining {name}",
        tracking=tracking,
    )
