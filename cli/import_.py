"""`trainscope import`: a Run from another tool's log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import Place, metric_asked, metric_options
from trainscope.cli.printing import remark, say_json
from trainscope.cli.schedule_options import ScheduleOptions
from trainscope.cli.taking import take

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("train", "retrain", "scratch-e", "scratch-b", "winning-ticket", "random-reinit")


def structure(value: str) -> str:
    """Return what a sparsifying action takes: filter, unstructured, or N:M.

    Raises:
        BadParameter: It is none of them.
    """
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", value)
    if value in ("filter", "unstructured") or (found and 0 < int(found[1]) < int(found[2])):
        return value
    raise click.BadParameter(
        f"'{value}' is no structure: choose filter, unstructured, or N:M with N below M"
    )


SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
WHOLE = click.IntRange(0)
STATED: tuple[tuple[str, Any, str], ...] = (
    ("--architecture", str, "The network's name."),
    ("--data", str, "The data it was trained on."),
    ("--base", str, "SHA-256 of the base model, or any name that tells base models apart."),
    ("--structure", structure, "filter, unstructured, or N:M."),
    ("--ratio", SHARE, "The ratio pruned, in (0, 1)."),
    ("--criterion", str, "How filters or weights were ranked."),
    ("--scope", str, "inner or all."),
    ("--speedup", click.FloatRange(0, min_open=True), "Dense FLOPs / pruned FLOPs."),
    ("--pruning-epoch", WHOLE, "Pretraining epochs before the action."),
    ("--stage-epochs", WHOLE, "Epochs of the pruning stage; 0 for one-shot pruning."),
    ("--stage-schedule", str, "The LR schedule of the pruning stage."),
    ("--stage-flops", WHOLE, "Multiply-adds spent in the pruning stage."),
    ("--pretrain-schedule", str, "The LR schedule of pretraining."),
    ("--pretrain-epochs", WHOLE, "Epochs that it plans."),
    ("--seed", WHOLE, "The seed."),
    ("--parameters", WHOLE, "Surviving parameters."),
    ("--flops", WHOLE, "Multiply-adds spent on training."),
)


def stated_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each fact that a log may lack."""
    for name, kind, text in reversed(STATED):
        command = click.option(name, type=kind, help=text)(command)
    return command


FORMATS = (
    *("csv", "epochs", "huggingface", "json", "jsonlines", "metrics", "mlflow", "tensorboard"),
    "text",
)


@click.command("import")
@click.argument("log", type=Place(path_type=Path))
@click.option(
    "--format",
    "log_format",
    type=click.Choice(FORMATS),
    help="What wrote it; by default recognised. csv reads Lightning's, timm's and W&B's too.",
)
@click.option("--run", help="The run to read, of a file or folder that holds several.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="FIELD=NAME for a field that the log calls otherwise: epoch, lr, train_loss, test_loss, "
    "test_accuracy, seconds. Can be repeated.",
)
@click.option(
    "--accuracy",
    type=click.Choice(["percent", "share"]),
    help="The unit of its accuracies; by default told by their size.",
)
@metric_options("The name of the test's metric in the log, where it is no accuracy: ppl, val_mIoU.")
@click.option(
    "--kind", type=click.Choice(KINDS), default="retrain", show_default=True, help="What was run."
)
@click.option(
    "--untrained-first",
    is_flag=True,
    help="Epoch 0 of the log is the network before the first step, not the first epoch.",
)
@click.option(
    "--first-epoch",
    type=click.IntRange(min=0),
    help="The log's number of the first epoch of this training, where it counts on from an earlier "
    "one; the epochs before it are left out.",
)
@click.option("--recipe", help="The LR schedule, where the log has no LR: F60,1e-3.")
@click.option("--schedule", help="The LR stages in place of a recipe, like 0:1e-2,30:1e-3.")
@click.option("--epochs", type=int, help="Total of epochs of --schedule.")
@stated_options
@click.option(
    "--setting",
    "settings",
    multiple=True,
    help="NAME=VALUE of the optimizer and the like: optimizer=sgd. Can be repeated.",
)
@click.option(
    "--output",
    type=Place(path_type=Path),
    help="The file of the Run; a folder gets run.json. By default it goes to stdout.",
)
def command(
    log: Path,
    log_format: str | None,
    run: str | None,
    columns: tuple[str, ...],
    accuracy: str | None,
    metric: str | None,
    better: str | None,
    unit: str | None,
    kind: str,
    untrained_first: bool,
    first_epoch: int | None,
    settings: tuple[str, ...],
    output: Path | None,
    **options: Any,
) -> None:
    """Make a Run from LOG: a table, JSON, TensorBoard's events, or a text log.

    LOG is a file or the folder that holds it. Its test accuracy is the metric of the Run, else its
    test loss, else what --metric names. What was taken for what is said on stderr. What the
    log does not say is said by options, and the Run marks it as given.
    """
    from trainscope.records import Kind
    from trainscope.records.imports import Given, run_from_log
    from trainscope.records.run import FILE_NAME

    asked = take(ScheduleOptions, options)
    planned = None if asked.recipe is None and asked.schedule is None else asked.build()
    if planned is None and asked.epochs is not None:
        raise click.UsageError("--epochs is the total of --schedule: give that too.")
    named = _pairs(columns, "--column", known=True)
    if metric is not None and "test_accuracy" in named:
        raise click.UsageError("--metric and --column test_accuracy=NAME name the same: give one.")
    given = Given(
        kind=Kind(kind),
        schedule=None if planned is None else str(planned),
        total=None if planned is None else planned.total,
        rates=() if planned is None else tuple(planned.rates()),
        settings=_pairs(settings, "--setting", known=False),
        columns=named if metric is None else {**named, "test_accuracy": metric},
        metric=metric_asked(metric, better, unit),
        percent=None if accuracy is None else accuracy == "percent",
        untrained_first=untrained_first,
        first_epoch=first_epoch,
        **options,  # what is stated
    )
    made = run_from_log(log, given, format=log_format, run=run, opened=_opened)
    if output is None:
        say_json(made.to_json())
        return
    path = output if output.suffix == ".json" else output / FILE_NAME
    made.save(path)
    many = "s" * (len(made.epochs) != 1)
    remark(f"wrote {path}: {len(made.epochs)} epoch{many} of {made.source}, LR {made.schedule}")
    for note in made.notes:
        remark(note)


def _opened(path: Path) -> object:
    from trainscope.networks.history import open_history  # torch is slow to import

    return open_history(path)


def _pairs(texts: tuple[str, ...], option: str, *, known: bool) -> dict[str, str]:
    from trainscope.errors import RecordError
    from trainscope.records.imports.log import FIELDS

    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise RecordError(f"{option} '{text}' is not of the form NAME=VALUE")
        if known and name not in FIELDS:
            raise RecordError(f"{option} '{text}': the fields are {', '.join(FIELDS)}")
        found[name] = value
    return found
