"""`trainscope estimate`: how many extra epochs a small learning rate needs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trainscope.cli.options import Place, metric_asked, metric_options, no_titles_option
from trainscope.cli.printing import remark, say, say_json
from trainscope.cli.schedule_options import refuse_recipe

FILE = Place(exists=True, path_type=Path)


@click.command("estimate")
@click.argument("run", type=FILE)
@click.option(
    "--target", type=float, help="Accuracy to reach, percent, or a value of RUN's own metric."
)
@metric_options("Of a CSV file, the column to estimate in the place of accuracy, like val_loss.")
@click.option(
    "--per",
    type=click.Choice(["epoch", "step", "token"]),
    help="What a CSV file counts; by default the first of these that is a column.",
)
@click.option(
    "--match",
    type=FILE,
    help="A Run or CSV at a larger LR: the reference. Without --target, its end is the target.",
)
@click.option(
    "--level", type=float, default=0.8, show_default=True, help="Probability that intervals hold."
)
@click.option(
    "--schedule",
    help="The planned retraining, like 0:1e-3,30:1e-4; by default RUN's own, if it decays.",
)
@click.option("--epochs", type=float, help="Total of epochs of --schedule or --shape.")
@click.option(
    "--shape",
    type=click.Choice(["cosine", "linear", "wsd"]),
    help="The shape of the schedule that RUN is in the middle of, in place of --schedule.",
)
@click.option(
    "--min-lr", type=float, help="Where --shape ends; by default what RUN's LRs fall towards."
)
@click.option(
    "--cooldown",
    type=float,
    help="Share of the total that the last part of --shape wsd takes.  [default: 0.2]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as JSON.")
@click.option("--plot", type=Place(dir_okay=False, path_type=Path), help="Draw it (PNG, SVG, PDF).")
@no_titles_option
def command(
    run: Path,
    target: float | None,
    metric: str | None,
    better: str | None,
    unit: str | None,
    per: str | None,
    match: Path | None,
    level: float,
    schedule: str | None,
    epochs: float | None,
    shape: str | None,
    min_lr: float | None,
    cooldown: float | None,
    as_json: bool,
    plot: Path | None,
    no_titles: bool,
) -> None:
    """Estimate when RUN reaches an accuracy, and how many epochs to add for it.

    RUN is a Run (run.json, or its folder) or a CSV file with the columns epoch,lr,accuracy and, if
    you have it, loss (the training loss): the first epochs of a retraining at a small learning
    rate, or all of it. With a planned schedule the target is meant after its decays; --shape cosine
    --epochs 90 says that of a run in its middle. --metric takes another column: a loss, a
    perplexity, or any other number.
    """
    from trainscope.comparison.curves import (
        check_reference,
        check_target,
        notes_on,
        planned_schedule,
        read_curve,
    )
    from trainscope.convergence import (
        continued_schedule,
        estimate_extra_epochs,
        final_level,
    )
    from trainscope.report.estimate_lines import estimate_lines
    from trainscope.report.pictures import kind_of_picture

    if target is None and match is None:
        raise click.UsageError("give --target ACCURACY or --match LARGE_RUN (or both).")
    if plot is not None:
        kind_of_picture(plot)
    of = metric_asked(metric, better, unit)
    small, reference = (
        None if file is None else read_curve(file, of, column=metric, per=per)
        for file in (run, match)
    )
    assert small is not None
    if reference is not None:
        check_reference(small, reference)
    if target is not None:
        check_target(target, small.metric)
    elif reference is not None:
        target = final_level(reference)
    assert target is not None
    if not run.is_dir() and run.suffix.lower() != ".json":
        for note in notes_on(small, target):
            remark(note)
    if shape is None and (min_lr is not None or cooldown is not None):
        raise click.UsageError("--min-lr and --cooldown are of a --shape: give that too.")
    if shape is not None:
        if schedule is not None or epochs is None:
            raise click.UsageError("give --shape with the total, --epochs, and no --schedule.")
        schedule = continued_schedule(small, shape, epochs, minimum=min_lr, cooldown=cooldown)
    elif schedule is not None:
        refuse_recipe(schedule, f"`trainscope schedule {schedule}` prints its stages")
    else:
        if epochs is not None:
            raise click.UsageError("--epochs is the total of a --schedule or --shape: give one.")
        schedule, epochs = planned_schedule(run, small) or (None, None)
    estimate = estimate_extra_epochs(
        small, target, reference, level=level, schedule=schedule, total_epochs=epochs
    )
    if plot is not None:
        from trainscope.report.convergence_display import ConvergenceDisplay
        from trainscope.report.pictures import save_alone

        shown = ConvergenceDisplay.from_estimate(estimate, small, reference)
        save_alone(shown, plot, title="" if no_titles else None)
    if as_json:
        say_json(json.dumps(estimate.to_json(), indent=2, allow_nan=False))
        return
    for line in estimate_lines(estimate, small, planned=schedule is not None):
        say(line)
    if plot is not None:
        say(f"wrote {plot}")
