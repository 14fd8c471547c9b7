"""`trainscope retrain`: prune a checkpoint and retrain it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trainscope.cli.action_options import ActionOptions, action_options
from trainscope.cli.measuring_options import MeasuringOptions
from trainscope.cli.network_options import (
    NetworkOptions,
    network_options,
    part_option,
    regrow_option,
    unsafe_load_option,
)
from trainscope.cli.options import Place
from trainscope.cli.printing import remark
from trainscope.cli.running import RunOptions, run_and_show, staging
from trainscope.cli.schedule_options import (
    PlanOptions,
    ScheduleOptions,
    plan_options,
    schedule_options,
)
from trainscope.cli.sections import Sectioned
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.training_options import build_settings, lora_options, training_options

WEIGHTS = {
    "inherited": "retrain",
    "winning-ticket": "winning-ticket",
    "random": "random-reinit",
}


@click.command("retrain", cls=Sectioned)
@network_options
@unsafe_load_option
@part_option
@action_options
@regrow_option
@click.option(
    "--weights",
    type=click.Choice(list(WEIGHTS)),
    default="inherited",
    show_default=True,
    help="Keep the trained weights; rewind the survivors to --rewind-to; or draw new ones.",
)
@click.option(
    "--rewind-to",
    type=Place(path_type=Path),
    help="The checkpoint, before or early in pretraining, that a winning ticket is rewound to.",
)
@plan_options
@schedule_options
@training_options
@lora_options
def command(
    checkpoint: Path, regrow: bool, weights: str, rewind_to: Path | None, **options: Any
) -> None:
    """Apply the sparsifying action to CHECKPOINT and retrain what is left.

    Without --ratio, --ratios, --heads, --blocks or N:M the network is retrained as it is. What came
    pruned, also to zeros without masks, stays at zero unless --regrow is given. Killed or
    interrupted, the same command goes on where it stopped.
    """
    from trainscope.diagnosis.opening import trial_on
    from trainscope.errors import ActionError
    from trainscope.networks import open_checkpoint, regrown
    from trainscope.networks.device import find_device
    from trainscope.records import Kind
    from trainscope.training.jobs import retraining_job, run_beside
    from trainscope.training.stage import check_plan, pruning_stage

    running, measuring = RunOptions.taken(options), take(MeasuringOptions, options)
    network, asked = take(NetworkOptions, options), take(ActionOptions, options)
    plan = take(PlanOptions, options)
    settings = build_settings(options)
    schedule = take(ScheduleOptions, options).build()
    check_all_taken(options)
    action = asked.build(settings.seed) if asked.prunes else None
    over = plan.build()
    if over is not None:
        if action is None:
            raise ActionError(
                f"the pruning schedule {over.name} needs a sparsifying action: give one with "
                "--ratio"
            )
        check_plan(over, action, settings)
    base, dataset = network.open(checkpoint)
    beside = run_beside(checkpoint, base)
    base = regrown(base) if regrow else base
    initial = None
    if rewind_to is not None:
        initial = open_checkpoint(
            rewind_to, arch=network.arch, model=network.model, trial=trial_on(dataset)
        )
    hook, watched = measuring.hook(dataset, settings)
    kind, staged = Kind(WEIGHTS[weights]), None
    if over is not None and action is not None:
        find_device(running.device)
        stage = pruning_stage(
            base, dataset, action, over, schedule, settings, weights=kind, initial=initial
        )
        staged = staging(plan.stage, running.device, base.architecture)(stage)
    job, _ = retraining_job(
        base,
        dataset,
        action,
        schedule,
        settings,
        pretraining=beside,
        weights=kind,
        initial=initial,
        staged=staged,
    )
    for note in dict.fromkeys((*base.notes, *job.notes)):
        remark(note)
    name = f"retraining {base.architecture}"
    run_and_show(replace(job, watched=watched), running, hook, name)
