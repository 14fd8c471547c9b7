"""Options that say an LR schedule, and the schedule they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainscope.cli.options import Place, together
from trainscope.training.shapes import SHAPES

if TYPE_CHECKING:
    from trainscope.training.plans import PruningPlan
    from trainscope.training.recipe import Recipe
    from trainscope.training.schedule import LRSchedule


@dataclass(frozen=True)
class ShapeOptions:
    """What turns a recipe into a schedule.

    Attributes:
        shape: One of `training.shapes.SHAPES`.
        min_lr: Where a cosine or a cycle ends.
        warmup: Epochs of a linear rise, put in front.
        extra_epochs: The first LR stage is longer by.
        pretrain_schedule: The stages of pretraining.
        pretrain_epochs: Their total.
    """

    shape: str = "halving"
    min_lr: float | None = None
    warmup: int = 0
    extra_epochs: int = 0
    pretrain_schedule: str | None = None
    pretrain_epochs: int | None = None

    def of_recipe(self, recipe: str) -> LRSchedule:
        """Return the schedule of a recipe.

        Raises:
            ScheduleError: It is none, or the options contradict it.
        """
        from trainscope.errors import ScheduleError
        from trainscope.training.recipe import parse_recipe
        from trainscope.training.shapes import shaped

        read = parse_recipe(recipe)
        pretraining = self.pretraining(read)
        if read.pretrain is None and pretraining is not None and self.shape != "rewind":
            raise ScheduleError(
                f"recipe {recipe} has no pretraining, so --pretrain-schedule changes nothing: "
                f"leave it out, write a recipe like P60{recipe}, or add --shape rewind"
            )
        return self._lengthened(read.schedule(shaped(self.shape, self.min_lr, pretraining)))

    def of_stages(self, stages: str, epochs: int | None, said: str = "--schedule ") -> LRSchedule:
        """Return the schedule that stages write out.

        Args:
            stages: Like "0:1e-2,30:1e-3".
            epochs: Their total.
            said: What stands before them on the command line, for messages.

        Raises:
            ScheduleError: They are none, have no total, or an option is of recipes alone.
        """
        from trainscope.errors import ScheduleError
        from trainscope.training.schedule import parse_schedule

        refuse_recipe(stages, f"give it with --recipe {stages}")
        if epochs is None:
            raise ScheduleError(f"{said}{stages} needs its total: give it with --epochs")
        self._refuse_shaping(f"{said}{stages}".strip())
        return self._lengthened(parse_schedule(stages, epochs))

    def pretraining(self, recipe: Recipe) -> LRSchedule | None:
        """Return the schedule of pretraining, None for a recipe without one.

        Raises:
            ScheduleError: A schedule without its total, or the other way round.
        """
        from trainscope.errors import ScheduleError
        from trainscope.training.schedule import parse_schedule

        stages, epochs = self.pretrain_schedule, self.pretrain_epochs
        if stages is not None:
            refuse_recipe(stages, f"`trainscope schedule {stages}` prints its stages")
        if (stages is None) != (epochs is None):
            raise ScheduleError(
                "--pretrain-schedule and --pretrain-epochs belong together: give both"
            )
        if stages is not None and epochs is not None:
            return parse_schedule(stages, epochs)
        return None if recipe.pretrain is None else recipe.pretraining()

    def _lengthened(self, schedule: LRSchedule) -> LRSchedule:
        from trainscope.training.shapes import lengthen_first_stage, warm_up

        longer = lengthen_first_stage(schedule, self.extra_epochs)
        return warm_up(longer, self.warmup) if self.warmup else longer

    def _refuse_shaping(self, schedule: str) -> None:
        """Refuse what makes a schedule of a recipe, where the stages themselves are given."""
        from trainscope.errors import ScheduleError

        given = {
            "--shape": None if self.shape == "halving" else self.shape,
            "--min-lr": self.min_lr,
            "--pretrain-schedule": self.pretrain_schedule,
            "--pretrain-epochs": self.pretrain_epochs,
        }
        for name, value in given.items():
            if value is not None:
                raise ScheduleError(
                    f"{schedule} says every LR itself, so {name} changes nothing: leave it out, or "
                    "give a recipe like F60,1e-2"
                )


@dataclass(frozen=True)
class ScheduleOptions(ShapeOptions):
    """An LR schedule: a recipe, or stages with their total.

    Attributes:
        recipe: Like "F60,1e-3".
        schedule: Or the stages, like "0:1e-2,30:1e-3".
        epochs: Their total.
    """

    recipe: str | None = None
    schedule: str | None = None
    epochs: int | None = None

    def build(self) -> LRSchedule:
        """Return the schedule.

        Raises:
            ScheduleError: The options describe none, or contradict each other.
        """
        from trainscope.errors import ScheduleError

        if (self.recipe is None) == (self.schedule is None):
            raise ScheduleError(
                "say the LR schedule once: --recipe F60,1e-3 or --schedule 0:1e-2,..."
            )
        if self.schedule is not None:
            return self.of_stages(self.schedule, self.epochs)
        assert self.recipe is not None
        if self.epochs is not None:
            raise ScheduleError(f"recipe {self.recipe} says its epochs itself: leave --epochs out")
        return self.of_recipe(self.recipe)


@dataclass(frozen=True)
class PlanOptions:
    """A pruning schedule, and where its epochs are kept.

    Attributes:
        plan: As `training.plans.parse_plan` reads it.
        stage: The folder of its epochs.
    """

    plan: str | None = None
    stage: Path | None = None

    def build(self) -> PruningPlan | None:
        """Return the pruning schedule; None for one-shot pruning.

        Raises:
            ScheduleError: The options describe none.
        """
        from trainscope.errors import ScheduleError
        from trainscope.training.plans import parse_plan

        plan = None if self.plan is None else parse_plan(self.plan)
        if plan is None and self.stage is not None:
            raise ScheduleError(
                "--stage is the folder of a pruning schedule's epochs: give one with --plan, like "
                "--plan gradual:30"
            )
        return plan


shape_options = together(
    click.option(
        "--shape",
        type=click.Choice(SHAPES),
        default="halving",
        show_default=True,
        help="Step decays that halve the epochs left; a cosine; a cyclic restart; one LR; "
        "or the last epochs of the pretraining schedule (LR rewinding).",
    ),
    click.option("--min-lr", type=float, help="Where a cosine or a cycle ends; 0 by default."),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Epochs of a linear warm-up, put in front: the total grows by them.",
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
"""What turns a recipe into a schedule."""


plan_options = together(
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
"""The pruning schedule, and the folder of its epochs."""


schedule_options = together(
    click.option("--recipe", help="The LR recipe: F60,1e-3 is 60 epochs from LR 1e-3."),
    click.option("--schedule", help="The LR stages in place of a recipe, like 0:1e-2,30:1e-3."),
    click.option("--epochs", type=int, help="Total of epochs of --schedule."),
    shape_options,
)
"""The ways to say a schedule: a recipe, or stages with their total."""


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
