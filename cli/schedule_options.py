"""Options that say an LR schedule, and the schedule they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainscope.cli.options import Place
from trainscope.training.shapes import SHAPES

if TYPE_CHECKING:
    from trainscope.training.plans import PruningPlan
    from trainscope.training.recipe import Recipe
    from trainscope.training.schedule import LRSchedule

Command = TypeVar("Command", bound=Callable[..., Any])


def shape_options(command: Command) -> Command:
    """Add what turns a recipe into a schedule."""
    for add in reversed(
        (
            click.option(
                "--shape",
                type=click.Choice(SHAPES),
                default="halving",
                show_default=True,
                help="Step decays that halve the epochs left; a cosine; a cyclic restart; one LR; "
                "or the last epochs of the pretraining schedule (LR rewinding).",
            ),
            click.option(
                "--min-lr", type=float, help="Where a cosine or a cycle ends; 0 by default."
            ),
            click.option(
                "--warmup",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Epochs of a linear warm-up, put in front.",
            ),
            click.option(
                "--extra-epochs",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Lengthen the first LR stage, like (+60) in a recipe.",
            ),
            click.option(
                "--pretrain-schedule",
                help="The schedule of pretraining, like 0:1e-1,30:1e-2; by default step decays "
                "from 1e-1 over as many epochs as the recipe has.",
            ),
            click.option(
                "--pretrain-epochs",
                type=click.IntRange(min=1),
                help="The epochs that the schedule of pretraining plans.",
            ),
        )
    ):
        command = add(command)
    return command


def plan_options(command: Command) -> Command:
    """Add the pruning schedule, and the folder of its epochs."""
    for add in reversed(
        (
            click.option(
                "--plan",
                metavar="SCHEDULE",
                help="The pruning schedule: one-shot (the default), or over epochs of training "
                "before those of the recipe, like gradual:30, iterative:40,rounds=5, greg-1:30 or "
                "greg-2:30.",
            ),
            click.option(
                "--stage",
                type=Place(path_type=Path),
                help="Folder of these epochs, which recipes share; by default runs/stage-NAME.",
            ),
        )
    ):
        command = add(command)
    return command


def build_plan(text: str | None, stage: Path | None) -> PruningPlan | None:
    """Return the pruning schedule that the options describe; None for one-shot pruning.

    Raises:
        ScheduleError: They describe none.
    """
    from trainscope.errors import ScheduleError
    from trainscope.training.plans import parse_plan

    plan = None if text is None else parse_plan(text)
    if plan is None and stage is not None:
        raise ScheduleError(
            "--stage is the folder of a pruning schedule's epochs: give one with --plan, like "
            "--plan gradual:30"
        )
    return plan


def schedule_options(command: Command) -> Command:
    """Add the ways to say a schedule: a recipe, or stages with their total."""
    for add in reversed(
        (
            click.option("--recipe", help="The LR recipe: F60,1e-3 is 60 epochs from LR 1e-3."),
            click.option(
                "--schedule", help="The LR stages in place of a recipe, like 0:1e-2,30:1e-3."
            ),
            click.option("--epochs", type=int, help="Total of epochs of --schedule."),
            shape_options,
        )
    ):
        command = add(command)
    return command


def build_schedule(
    *,
    recipe: str | None,
    schedule: str | None,
    epochs: int | None,
    shape: str,
    min_lr: float | None,
    warmup: int,
    extra_epochs: int,
    pretrain_schedule: str | None,
    pretrain_epochs: int | None,
    said: str = "--schedule ",
) -> LRSchedule:
    """Return the schedule that the options describe.

    `said` is what stands before the stages on the command line, for messages.

    Raises:
        ScheduleError: They describe none, or contradict each other.
    """
    from trainscope.errors import ScheduleError
    from trainscope.training.recipe import parse_recipe
    from trainscope.training.schedule import parse_schedule
    from trainscope.training.shapes import lengthen_first_stage, shaped, warm_up

    if (recipe is None) == (schedule is None):
        raise ScheduleError("say the LR schedule once: --recipe F60,1e-3 or --schedule 0:1e-2,...")
    if schedule is not None:
        refuse_recipe(schedule, f"give it with --recipe {schedule}")
        if epochs is None:
            raise ScheduleError(f"{said}{schedule} needs its total: give it with --epochs")
        _refuse_shaping(
            f"{said}{schedule}".strip(), shape, min_lr, pretrain_schedule, pretrain_epochs
        )
        made = parse_schedule(schedule, epochs)
    else:
        assert recipe is not None
        if epochs is not None:
            raise ScheduleError(f"recipe {recipe} says its epochs itself: leave --epochs out")
        read = parse_recipe(recipe)
        pretraining = build_pretraining(read, pretrain_schedule, pretrain_epochs)
        if read.pretrain is None and pretraining is not None and shape != "rewind":
            raise ScheduleError(
                f"recipe {recipe} has no pretraining, so --pretrain-schedule changes nothing: "
                f"leave it out, write a recipe like P60{recipe}, or add --shape rewind"
            )
        made = read.schedule(shaped(shape, min_lr, pretraining))
    made = lengthen_first_stage(made, extra_epochs)
    return warm_up(made, warmup) if warmup else made


def _refuse_shaping(
    schedule: str,
    shape: str,
    minimum: float | None,
    pretrain_schedule: str | None,
    pretrain_epochs: int | None,
) -> None:
    """Refuse what makes a schedule of a recipe, where the stages themselves are given.

    Raises:
        ScheduleError: One of the options is given; the message names it.
    """
    from trainscope.errors import ScheduleError

    given = (
        ("--shape", None if shape == "halving" else shape),
        ("--min-lr", minimum),
        ("--pretrain-schedule", pretrain_schedule),
        ("--pretrain-epochs", pretrain_epochs),
    )
    for name, value in given:
        if value is not None:
            raise ScheduleError(
                f"{schedule} says every LR itself, so {name} changes nothing: leave it out, or "
                "give a recipe like F60,1e-2"
            )


def build_pretraining(
    recipe: Recipe, schedule: str | None, epochs: int | None
) -> LRSchedule | None:
    """Return the schedule of pretraining, None for a recipe without one.

    Raises:
        ScheduleError: A schedule without its total, or the other way round.
    """
    from trainscope.errors import ScheduleError
    from trainscope.training.schedule import parse_schedule

    if schedule is not None:
        refuse_recipe(schedule, f"`trainscope schedule {schedule}` prints its stages")
    if (schedule is None) != (epochs is None):
        raise ScheduleError("--pretrain-schedule and --pretrain-epochs belong together: give both")
    if schedule is not None and epochs is not None:
        return parse_schedule(schedule, epochs)
    return None if recipe.pretrain is None else recipe.pretraining()


def refuse_recipe(schedule: str, instead: str) -> None:
    """Refuse a recipe, like F60,1e-3, where the stages of a schedule are wanted.

    Raises:
        ScheduleError: It is one; the message ends in `instead`.
    """
    from trainscope.errors import ScheduleError

    if re.match(r"\s*[PF]\d", schedule):
        raise ScheduleError(
            f"'{schedule}' is a recipe and not the stages of a schedule like 0:1e-2,30:1e-3: "
            f"{instead}"
        )
