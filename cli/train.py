"""`trainscope train`: a network from random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trainscope.cli.options import task_option
from trainscope.cli.running import MEASURING, build_hook, run_and_show
from trainscope.cli.schedule_options import build_schedule, schedule_options
from trainscope.cli.sections import Sectioned
from trainscope.cli.tracking import take_tracking
from trainscope.cli.training_options import build_settings, open_dataset, training_options

DATA_HELP = (
    "digits, mnist:ROOT, fashionmnist:ROOT, cifar10:ROOT, cifar100:ROOT, imagefolder:ROOT, or "
    "package.module:factory for your own loaders."
)


@click.command("train", cls=Sectioned)
@click.option("--arch", help="The architecture's name, like resnet20.")
@click.option("--model", help="The function that builds the network: package.module:factory.")
@click.option("--data", required=True, help=DATA_HELP)
@click.option("--input-shape", help="CxHxW to which a folder of images is resized.")
@click.option("--download", is_flag=True, help="Fetch the data where it is missing.")
@task_option
@schedule_options
@training_options
def command(
    arch: str | None,
    model: str | None,
    data: str,
    input_shape: str | None,
    download: bool,
    task: str | None,
    output: Path | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network from random weights.

    The folder of the run gets checkpoint.pt, which `trainscope probe` reads with no other option,
    and run.json. Killed or interrupted, the same command goes on where it stopped.
    """
    from trainscope.training.jobs import training_job

    tracking = take_tracking(options)
    measuring = {name: options.pop(name) for name in MEASURING}
    settings = build_settings(options)
    schedule = build_schedule(**options)
    name, shape = named_architecture(arch, model, input_shape)
    dataset = open_dataset(data, shape, download=download, task=task)
    job = training_job(name, dataset, schedule, settings)
    hook, watched = build_hook(dataset, settings, **measuring)
    job = replace(job, watched=watched)
    run_and_show(
        job,
        output=output,
        device=device,
        as_json=as_json,
        hook=hook,
        name=f"training {name}",
        tracking=tracking,
    )


def named_architecture(
    arch: str | None, model: str | None, input_shape: str | None
) -> tuple[str, tuple[int, ...]]:
    """Return the name of an architecture and the shape of its inputs.

    Raises:
        CheckpointError: There is none of that name, or not exactly one is named.
        DataError: The shape is no shape.
    """
    from trainscope.errors import CheckpointError, DataError
    from trainscope.networks import from_factory
    from trainscope.networks.registry import architecture

    if (arch is None) == (model is None):
        raise CheckpointError("name the architecture once: --arch resnet20 or --model PACKAGE:NAME")
    if arch is not None:
        shape: tuple[int, ...] = architecture(arch).input_shape
    else:
        assert model is not None
        from_factory(model)
        shape = (3, 224, 224)
    if input_shape is not None:
        sides = input_shape.split("x")
        if len(sides) != 3 or not all(s.isascii() and s.isdigit() and int(s) for s in sides):
            raise DataError(f"--input-shape '{input_shape}' is not of the form CxHxW, like 3x32x32")
        shape = tuple(int(side) for side in sides)
    return arch or str(model), shape
