"""`trainscope schedule`: the LR schedule of a recipe, in the field's notation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainscope.cli.options import Place, no_titles_option
from trainscope.cli.printing import remark, say, say_json
from trainscope.cli.schedule_options import ScheduleOptions, ShapeOptions, shape_options
from trainscope.cli.taking import check_all_taken, take


@click.command("schedule")
@click.argument("recipe")
@shape_options
@click.option(
    "--epochs", type=int, help="Total of epochs, where RECIPE is a schedule like 0:1e-2,30:1e-3."
)
@click.option(
    "--speedup", type=float, help="Dense FLOPs / pruned FLOPs, for a recipe like P30/F90,1e-2."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything known of it as JSON.")
@click.option("--plot", type=Place(dir_okay=False, path_type=Path), help="Draw it (PNG, SVG, PDF).")
@no_titles_option
def command(
    recipe: str,
    epochs: int | None,
    speedup: float | None,
    as_json: bool,
    plot: Path | None,
    no_titles: bool,
    **options: Any,
) -> None:
    """Print the LR schedule of RECIPE, like 0:1e-1,30:1e-2, and nothing else.

    RECIPE is F90,1e-1 (90 epochs from LR 1e-1), P60F60,1e-3 (of which the retraining's schedule is
    printed), P30/F90,1e-2 (the pruning epoch is divided by --speedup), any of them with (+60)
    behind for a longer first stage; or a schedule itself, which is checked.
    """
    import json

    from trainscope.errors import ScheduleError
    from trainscope.report.pictures import kind_of_picture
    from trainscope.training.recipe import parse_recipe

    shape = take(ShapeOptions, options)
    check_all_taken(options)
    if plot is not None:
        kind_of_picture(plot)
    if speedup is not None and (":" in recipe or not parse_recipe(recipe).squeezed):
        raise ScheduleError(
            f"'{recipe}' divides nothing by a speedup: leave --speedup out, or write a recipe like "
            "P30/F90,1e-2"
        )
    if ":" in recipe:
        schedule = shape.of_stages(recipe, epochs, said="")
        pruning_epoch, pretraining = None, None
    else:
        schedule = ScheduleOptions(**vars(shape), recipe=recipe, epochs=epochs).build()
        read = parse_recipe(recipe)
        pruning_epoch = read.pruning_epoch(speedup)
        pretraining = shape.pretraining(read)
        if read.squeezed:
            squeeze = f"pruning epoch {pruning_epoch} ({read.pretrain} / {speedup:g})"
            remark(squeeze)
    if shape.warmup:
        rise, rest = shape.warmup, schedule.total - shape.warmup
        remark(f"{schedule.total} epochs: {rise} of warm-up, and then the {rest} of the schedule")
    if plot is not None:
        from trainscope.report.pictures import save_alone
        from trainscope.report.schedule_display import ScheduleDisplay

        shown = ScheduleDisplay.from_schedules({recipe: schedule})
        save_alone(shown, plot, title="" if no_titles else None)
    if not as_json:
        say(str(schedule))
        return
    known = {
        "schedule": str(schedule),
        "epochs": schedule.total,
        "first_stage": schedule.first_stage,
        "lr_time": schedule.lr_time,
        "pruning_epoch": pruning_epoch,
        "pretraining": None if pretraining is None else str(pretraining),
        "pretraining_epochs": None if pretraining is None else pretraining.total,
    }
    say_json(json.dumps(known, indent=2))
