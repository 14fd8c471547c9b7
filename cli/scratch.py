"""`trainscope scratch`: a pruned architecture from random weights, for a fair comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.measuring_options import MeasuringOptions
from trainscope.cli.network_options import (
    DATA_HELP,
    NetworkOptions,
    part_option,
    regrow_option,
    unsafe_load_option,
)
from trainscope.cli.options import Place, is_typed, task_option
from trainscope.cli.printing import remark
from trainscope.cli.running import RunOptions, run_and_show
from trainscope.cli.schedule_options import ScheduleOptions, schedule_options
from trainscope.cli.sections import Sectioned
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.training_options import build_settings, training_options

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
    regrow: bool,
    **options: Any,
) -> None:
    """Train the architecture of a pruned network from fresh random weights.

    How long is worked out from the run.json beside --like: with its epochs of pretraining and
    retraining, and its speedup. Otherwise say it with --recipe or --schedule.
    """
    from trainscope.networks import regrown
    from trainscope.records import Kind
    from trainscope.training.jobs import run_beside, scratch_job

    running, measuring = RunOptions.taken(options), take(MeasuringOptions, options)
    settings = build_settings(options)
    asked, source = take(ScheduleOptions, options), take(NetworkOptions, options)
    check_all_taken(options)
    if is_typed("lr") and (asked.recipe or asked.schedule):
        raise click.UsageError("--lr is the first LR where no --recipe or --schedule says it.")
    network, dataset = source.open(like)
    run = run_beside(like, network)
    network = regrown(network) if regrow else network
    if asked.recipe is None and asked.schedule is None:
        equal = asked.epochs or _epochs("epochs", count, run, speedup)
        epochs = equal if asked.epochs else _epochs(budget, count, run, speedup)
        if asked.shape == "halving":
            asked = replace(asked, schedule=_decaying(asked, lr, equal, epochs), epochs=epochs)
        else:
            asked = replace(asked, recipe=f"F{epochs},{lr}", epochs=None)
    schedule = asked.build()
    kind = Kind.SCRATCH_E if budget == "epochs" else Kind.SCRATCH_B
    job = scratch_job(network, dataset, schedule, settings, kind, retraining=run)
    hook, watched = measuring.hook(dataset, settings)
    for note in dict.fromkeys((*network.notes, *job.notes)):
        remark(note)
    name = f"training {network.architecture} from scratch"
    run_and_show(replace(job, watched=watched), running, hook, name)


def _decaying(asked: ScheduleOptions, lr: str, equal: int, epochs: int) -> str:
    """Return step decays that more epochs stretch: a longer training has longer stages, each."""
    from trainscope.training.shapes import stretched

    plain = replace(asked, recipe=f"F{equal},{lr}", epochs=None, warmup=0, extra_epochs=0)
    return str(stretched(plain.build(), epochs))


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
