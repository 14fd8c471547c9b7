"""`trainscope pipeline`: pretrain to the pruning epoch, act, retrain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import Place, action_options, build_action, task_option
from trainscope.cli.printing import remark
from trainscope.cli.retrain import ACTION, WEIGHTS
from trainscope.cli.running import (
    MEASURING,
    build_hook,
    kept_on_interrupt,
    run_and_show,
    watching,
)
from trainscope.cli.schedule_options import build_pretraining, build_schedule, shape_options
from trainscope.cli.train import DATA_HELP, named_architecture
from trainscope.cli.training_options import build_settings, open_dataset, training_options

if TYPE_CHECKING:
    from trainscope.sparsify import Action
    from trainscope.training.job import Job
    from trainscope.training.recipe import Recipe


@click.command("pipeline")
@click.option("--recipe", required=True, help="Like P60F60,1e-3, or squeezed: P30/F90,1e-2.")
@click.option("--arch", default="digits_resnet", show_default=True, help="The architecture's name.")
@click.option("--model", help="Or the function that builds it: package.module:factory.")
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
@shape_options
@training_options
def command(
    recipe: str,
    arch: str,
    model: str | None,
    data: str,
    input_shape: str | None,
    download: bool,
    task: str | None,
    weights: str,
    speedup: float | None,
    stem: Path | None,
    output: Path | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Pretrain to the pruning epoch, apply the sparsifying action, and retrain.

    The pretraining is kept in a folder of its own and shared: P30F90, P60F60 and P90F30 pretrain
    once. Killed or interrupted, the same command goes on where it stopped.
    """
    from trainscope.diagnosis.opening import trial_on
    from trainscope.errors import ScheduleError
    from trainscope.networks import open_checkpoint
    from trainscope.networks.device import find_device
    from trainscope.records import Kind
    from trainscope.training.folder import CHECKPOINT
    from trainscope.training.job import key_of
    from trainscope.training.jobs import retraining_job, run_beside, training_job
    from trainscope.training.recipe import parse_recipe
    from trainscope.training.stem import epoch_folder, pretrain

    find_device(device)
    measuring = {name: options.pop(name) for name in MEASURING}
    asked = {name: options.pop(name) for name in ACTION}
    settings = build_settings(options)
    schedule = build_schedule(recipe=recipe, schedule=None, epochs=None, **options)
    read = parse_recipe(recipe)
    pretraining = build_pretraining(read, options["pretrain_schedule"], options["pretrain_epochs"])
    if read.pretrain is None or pretraining is None:
        raise ScheduleError(f"recipe '{recipe}' has no pretraining: write one like P60{recipe}")
    action = build_action(**asked, seed=settings.seed)
    name, shape = named_architecture(None if model else arch, model, input_shape)
    dataset = open_dataset(data, shape, download=download, task=task)
    first = training_job(name, dataset, pretraining, settings)
    epoch = _pruning_epoch(read, speedup, first, action)
    if epoch > pretraining.total:
        raise ScheduleError(
            f"the pruning epoch {epoch} lies beyond the {pretraining.total} epochs of pretraining"
        )
    folder = stem or Path("runs") / f"stem-{key_of(first.frozen())}"
    with kept_on_interrupt(folder), watching(None, f"pretraining {name}") as watch:
        kept = pretrain(first, folder, epoch, device=device, watch=watch)
    trial = trial_on(dataset)
    base = open_checkpoint(kept / CHECKPOINT, model=model, trial=trial)
    initial = open_checkpoint(epoch_folder(folder, 0) / CHECKPOINT, model=model, trial=trial)
    job, _ = retraining_job(
        base,
        dataset,
        action,
        schedule,
        settings,
        pretraining=run_beside(kept / CHECKPOINT, base),
        weights=Kind(WEIGHTS[weights]),
        initial=initial,
    )
    hook, watched = build_hook(
        dataset, batch_size=settings.batch_size, seed=settings.seed, **measuring
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
    )


def _pruning_epoch(recipe: Recipe, speedup: float | None, job: Job, action: Action) -> int:
    """Return the pruning epoch; a squeezed one is divided by the action's own speedup.

    The speedup of a uniform ratio does not depend on the weights, so that the untrained network
    tells it; under a global ranking this is an estimate, and a `--speedup` overrides it.
    """
    from trainscope.sparsify import sparsify

    if recipe.squeezed and speedup is None:
        network = job.network
        speedup = sparsify(network.module, action, network.inputs).record.speedup
    epoch = recipe.pruning_epoch(speedup)
    assert epoch is not None
    if recipe.squeezed:
        remark(f"pruning epoch {epoch} ({recipe.pretrain} / {speedup:.4g})")
    return epoch
