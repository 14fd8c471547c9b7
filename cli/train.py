"""`trainscope train`: a network from random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from trainscope.cli.measuring_options import MeasuringOptions
from trainscope.cli.network_options import DATA_HELP, NewNetworkOptions
from trainscope.cli.options import task_option
from trainscope.cli.running import RunOptions, run_and_show
from trainscope.cli.schedule_options import ScheduleOptions, schedule_options
from trainscope.cli.sections import Sectioned
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.training_options import build_settings, training_options


@click.command("train", cls=Sectioned)
@click.option("--arch", help="The architecture's name, like resnet20.")
@click.option("--model", help="The function that builds the network: package.module:factory.")
@click.option("--data", required=True, help=DATA_HELP)
@click.option("--input-shape", help="CxHxW to which a folder of images is resized.")
@click.option("--download", is_flag=True, help="Fetch the data where it is missing.")
@task_option
@schedule_options
@training_options
def command(**options: Any) -> None:
    """Train a network from random weights.

    The folder of the run gets checkpoint.pt, which `trainscope probe` reads with no other option,
    and run.json. Killed or interrupted, the same command goes on where it stopped.
    """
    from trainscope.training.jobs import training_job

    running, measuring = RunOptions.taken(options), take(MeasuringOptions, options)
    network = take(NewNetworkOptions, options)
    settings = build_settings(options)
    schedule = take(ScheduleOptions, options).build()
    check_all_taken(options)
    dataset = network.open_data()
    job = training_job(network.name, dataset, schedule, settings)
    hook, watched = measuring.hook(dataset, settings)
    run_and_show(replace(job, watched=watched), running, hook, f"training {network.name}")
