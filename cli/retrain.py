"""`trainscope retrain`: prune a checkpoint and retrain it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trainscope.cli.options import (
    ACTION_DEFAULTS,
    Place,
    action_options,
    build_action,
    network_options,
    part_option,
    regrow_option,
    unsafe_load_option,
)
from trainscope.cli.printing import remark
from trainscope.cli.running import MEASURING, build_hook, run_and_show, staging
from trainscope.cli.schedule_options import (
    build_plan,
    build_schedule,
    plan_options,
    schedule_options,
)
from trainscope.cli.sections import Sectioned
from trainscope.cli.tracking import take_tracking
from trainscope.cli.training_options import (
    build_settings,
    lora_options,
    open_both,
    training_options,
)

ACTION = tuple(ACTION_DEFAULTS)
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
    checkpoint: Path,
    arch: str | None,
    model: str | None,
    part: str | None,
    unsafe_load: bool,
    data: str | None,
    class_index: Path | None,
    download: bool,
    sequence_length: int | None,
    tokenizer: Path | None,
    task: str | None,
    regrow: bool,
    weights: str,
    rewind_to: Path | None,
    plan: str | None,
    stage: Path | None,
    output: Path | None,
    device: str,
    as_json: bool,
    **options: Any,
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

    tracking = take_tracking(options)
    measuring = {name: options.pop(name) for name in MEASURING}
    asked = {name: options.pop(name) for name in ACTION}
    settings = build_settings(options)
    schedule = build_schedule(**options)
    shares = [asked[name] for name in ("ratio", "ratios", "heads", "blocks")]
    nothing = all(share is None for share in shares) and ":" not in asked["structure"]
    action = None if nothing else build_action(**asked, seed=settings.seed)
    over = build_plan(plan, stage)
    if over is not None:
        if action is None:
            raise ActionError(
                f"the pruning schedule {over.name} needs a sparsifying action: give one with "
                "--ratio"
            )
        check_plan(over, action, settings)
    base, dataset = open_both(
        checkpoint,
        data,
        task=task,
        download=download,
        class_index=class_index,
        sequence_length=sequence_length,
        tokenizer=tokenizer,
        arch=arch,
        model=model,
        unsafe_load=unsafe_load,
        part=part,
    )
    beside = run_beside(checkpoint, base)
    base = regrown(base) if regrow else base
    initial = None
    if rewind_to is not None:
        initial = open_checkpoint(rewind_to, arch=arch, model=model, trial=trial_on(dataset))
    hook, watched = build_hook(dataset, settings, **measuring)
    kind, staged = Kind(WEIGHTS[weights]), None
    if over is not None and action is not None:
        find_device(device)
        asked_for = pruning_stage(
            base, dataset, action, over, schedule, settings, weights=kind, initial=initial
        )
        staged = staging(stage, device, base.architecture)(asked_for)
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
    run_and_show(
        replace(job, watched=watched),
        output=output,
        device=device,
        as_json=as_json,
        hook=hook,
        name=f"retraining {base.architecture}",
        tracking=tracking,
    )
