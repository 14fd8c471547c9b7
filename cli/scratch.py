"""`trainscope scratch`: a pruned architecture from random weights, for a fair comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import (
    Place,
    part_option,
    regrow_option,
    task_option,
    unsafe_load_option,
)
from trainscope.cli.printing import remark
from trainscope.cli.running import MEASURING, build_hook, run_and_show
from trainscope.cli.schedule_options import build_schedule, schedule_options
from trainscope.cli.sections import Sectioned
from trainscope.cli.tracking import take_tracking
from trainscope.cli.train import DATA_HELP
from trainscope.cli.training_options import build_settings, open_both, training_options

if TYPE_CHECKING:
    from trainscope.records import Run


@click.command("scratch", cls=Sectioned)
@click.option(
    "--like",
    required=True,
    type=Place(path_type=Path),
    help="The checkpoint of the pruned network whose shape and masks are taken.",
)
@click.option(
    "--budget",
    type=click.Choice(["epochs", "flops"]),
    default="epochs",
    show_default=True,
    help="As many epochs as the pipeline had (Scratch-E), or as many FLOPs (Scratch-B).",
)
@click.option(
    "--count",
    type=click.Choice(["pipeline", "pretraining"]),
    default="pipeline",
    show_default=True,
    help="What the budget counts: pretraining and retraining, or pretraining alone.",
)
@click.option(
    "--lr", default="1e-1", show_default=True, help="The first LR, where no schedule is given."
)
@click.option(
    "--speedup", type=float, help="Dense FLOPs / pruned FLOPs, where no run beside --like says it."
)
@click.option("--arch", help="The architecture's name, where it is not recognised.")
@click.option("--model", help="The function that builds the network: package.module:factory.")
@unsafe_load_option
@part_option
@regrow_option
@click.option("--data", help=DATA_HELP + " By default what --like remembers.")
@click.option("--download", is_flag=True, help="Fetch the data where it is missing.")
@task_option
@schedule_options
@training_options
def command(
    like: Path,
    budget: str,
    count: str,
    lr: str,
    speedup: float | None,
    arch: str | None,
    model: str | None,
    part: str | None,
    unsafe_load: bool,
    regrow: bool,
    data: str | None,
    download: bool,
    task: str | None,
    output: Path | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the architecture of a pruned network from fresh random weights.

    How long is worked out from the run.json beside --like: with its epochs of pretraining and
    retraining, and its speedup. Otherwise say it with --recipe or --schedule.
    """
    from trainscope.networks import regrown
    from trainscope.records import Kind
    from trainscope.training.jobs import run_beside, scratch_job

    tracking = take_tracking(options)
    measuring = {name: options.pop(name) for name in MEASURING}
    settings = build_settings(options)
    network, dataset = open_both(
        like,
        data,
        task=task,
        download=download,
        arch=arch,
        model=model,
        unsafe_load=unsafe_load,
        part=part,
    )
    run = run_beside(like, network)
    network = regrown(network) if regrow else network
    if options["recipe"] is None and options["schedule"] is None:
        epochs = options["epochs"] or _epochs(budget, count, run, speedup)
        options |= {"recipe": f"F{epochs},{lr}", "epochs": None}
    schedule = build_schedule(**options)
    kind = Kind.SCRATCH_E if budget == "epochs" else Kind.SCRATCH_B
    job = scratch_job(network, dataset, schedule, settings, kind, retraining=run)
    hook, watched = build_hook(dataset, settings, **measuring)
    for note in dict.fromkeys((*network.notes, *job.notes)):
        remark(note)
    run_and_show(
        replace(job, watched=watched),
        output=output,
        device=device,
        as_json=as_json,
        hook=hook,
        name=f"training {network.architecture} from scratch",
        tracking=tracking,
    )


def _epochs(budget: str, count: str, run: Run | None, speedup: float | None) -> int:
    from trainscope.errors import ScheduleError
    from trainscope.training.budget import scratch_epochs

    pretrain = None if run is None or run.pretraining is None else run.pretraining.epochs
    if run is None or pretrain is None:
        raise ScheduleError(
            "no run.json beside --like says how long the pipeline took: give the epochs with "
            "--epochs, or a --recipe"
        )
    retrain = run.epochs[-1].epoch if count == "pipeline" and run.epochs else 0
    known = speedup or (None if run.pruning is None else run.pruning.speedup)
    return scratch_epochs(
        "epochs" if budget == "epochs" else "flops",
        pretrain=pretrain,
        retrain=retrain,
        speedup=known,
    )
