"""Learning curves for the estimator: of runs, of settings, and from files that a person names."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from trainscope.comparison.settings import Setting
from trainscope.convergence import LearningCurve, loss_at_ends, own_schedule
from trainscope.convergence.stage import SAME, first_stage
from trainscope.errors import RecordError
from trainscope.records import EpochRecord, Metric, Run
from trainscope.records.imports.table import open_table
from trainscope.records.metric import ACCURACY

FAR = 20
"""Times a target that a best error rate is, from which on the target may be meant as a share."""
FEWEST_EPOCHS = 4
"""Fewer epochs than this make no curve."""


def run_curve(run: Run) -> LearningCurve | None:
    """Return the learning curve of one run; None with too few values."""
    known = [record for record in run.epochs if record.test_metric is not None and record.lr > 0]
    if len(known) < FEWEST_EPOCHS:
        return None
    return LearningCurve(
        epochs=[record.epoch for record in known],
        accuracy=[record.test_metric or 0.0 for record in known],
        lr=[record.lr for record in known],
        metric=run.metric,
    )


def mean_curve(item: Setting, epochs: int | None = None) -> LearningCurve | None:
    """Return the learning curve of a setting, averaged over its seeds; None without values.

    Args:
        item: The setting.
        epochs: Only so many epochs from the start.
    """
    by_epoch: dict[int, list[EpochRecord]] = {}
    for run in item.runs:
        for record in run.epochs:
            if (
                record.test_metric is not None
                and record.lr > 0
                and (epochs is None or record.epoch <= epochs)
            ):
                by_epoch.setdefault(record.epoch, []).append(record)
    whole = max(map(len, by_epoch.values()), default=0)
    kept = {epoch: held for epoch, held in sorted(by_epoch.items()) if len(held) == whole}
    if len(kept) < FEWEST_EPOCHS:
        return None
    losses = [[record.train_loss for record in held] for held in kept.values()]
    known = all(loss is not None for held in losses for loss in held)
    return LearningCurve(
        epochs=list(kept),
        accuracy=[statistics.fmean(r.test_metric or 0.0 for r in held) for held in kept.values()],
        lr=[held[0].lr for held in kept.values()],
        loss=loss_at_ends(
            [statistics.fmean(x or 0.0 for x in held) for held in losses],
            [held[0].lr for held in kept.values()],
        )
        if known
        else None,
        momentum=item.first.number("momentum"),
        metric=item.metric,
    )


def read_curve(
    path: Path,
    metric: Metric | None = None,
    *,
    column: str | None = None,
    per: str | None = None,
) -> LearningCurve:
    """Read a Run, or a table with one row an epoch and accuracies in percent.

    The columns are separated by commas, semicolons or tabs.

    Args:
        path: The file.
        metric: What the values are of, where not accuracies.
        column: The name of their column.
        per: What is counted, "epoch", "step" or "token"; by default the first that is there.

    Raises:
        RecordError: It is neither; a column is there twice; or an accuracy is no percentage.
    """
    is_run = path.is_dir() or path.suffix.lower() == ".json"
    if not is_run:
        _refuse_empty(path, column, per)
    curve = LearningCurve.from_file(path, metric, column=column, per=per)
    if is_run:
        return curve  # a Run has its epochs once, and percent
    if curve.repeated is not None:
        raise RecordError(
            f"{path} has {curve.per} {curve.repeated:g} more than once: keep one row "
            f"{_one(curve.per)}, and give two runs in two files"
        )
    if curve.metric.unit == "%" and len(curve) and 0 < curve.accuracy.max() <= 1:
        other = "" if curve.metric.is_accuracy else ", or take them as they are with --unit ''"
        raise RecordError(
            f"{path} has no {curve.metric.name} above 1, so these are shares of 1 and not percent: "
            f"multiply the column by 100{other}"
        )
    return curve


def _refuse_empty(path: Path, column: str | None, per: str | None) -> None:
    """Refuse a table without rows, by the columns that were asked for."""
    columns, rows = open_table(path)
    if next(rows, None) is not None:
        return
    wanted = f"{per or 'epoch'}, lr and {column or 'accuracy'}"
    has = f"a header alone ({', '.join(columns)})" if any(columns) else "no line"
    raise RecordError(
        f"{path} has {has} and no rows: give a table with the columns {wanted}, or of another "
        "tool's log make a Run with `trainscope import`"
    )


def notes_on(curve: LearningCurve, target: float) -> list[str]:
    """Return what may be meant otherwise than it was taken, each one sentence.

    Args:
        curve: Of a table.
        target: The value to reach.
    """
    notes = []
    metric, known = curve.metric, curve.accuracy[np.isfinite(curve.accuracy)]
    share = metric.unit == "%" and metric.sign < 0 and 0 < target < 1
    if share and len(known) and known.min() > FAR * target:
        notes.append(
            f"The target is {target:g} %, far below the {known.min():g} % that was reached: for a "
            f"share of {target:g} write {100 * target:g}."
        )
    trained = curve.loss is not None and len(curve.loss) and np.isfinite(curve.loss[0])
    if len(curve) and curve.epochs[0] == 0 and trained:
        notes.append(
            f"{curve.per.capitalize()} 0 was taken to be before the first step, though it has a "
            f"training loss: where it is the first {curve.per}, count from 1."
        )
    return notes


def planned_schedule(path: Path, curve: LearningCurve) -> tuple[str, float] | None:
    """Return the schedule that a file's run is under, and its total; None where it has no decays.

    That is the plan of a Run that has not come to its end, else the schedule that was run.

    Args:
        path: A Run or a table.
        curve: What `read_curve` made of it.
    """
    if path.is_dir() or path.suffix.lower() == ".json":
        run = Run.load(path)
        done = max((record.epoch for record in run.epochs), default=0)
        if run.schedule is not None and run.total is not None and run.total > done:
            return (run.schedule, float(run.total)) if "," in run.schedule else None
    return own_schedule(curve)


def _one(per: str) -> str:
    return f"an {per}" if per == "epoch" else f"a {per}"


def check_target(target: float, metric: Metric = ACCURACY) -> None:
    """Refuse a share of 1 in the place of a percentage, and a negative one.

    Raises:
        RecordError: The target is above 0 and at most 1, and higher is better; or it is below 0.
    """
    name = f"{'an' if metric.is_accuracy else 'a value of'} {metric.name} in percent"
    if metric.unit == "%" and target < 0:
        raise RecordError(f"the target is {name}, 0 to 100, and not {target:g}")
    if metric.unit == "%" and metric.sign > 0 and 0 < target <= 1:
        raise RecordError(
            f"the target is {name}, and {target:g} would be less than any network "
            f"reaches: write {100 * target:g} for a share of {target:g}"
        )


def check_reference(small: LearningCurve, reference: LearningCurve) -> None:
    """Refuse a reference that was not run at a larger LR, in the first LR stage of each.

    Raises:
        RecordError: Its LR is the same or smaller.
    """
    own, other = first_stage(small), first_stage(reference)
    if own is not None and other is not None and other.lr <= own.lr * (1 + SAME):
        raise RecordError(
            f"the reference of --match is a run at a larger LR, and it has LR {other.lr:g} where "
            f"the run that is watched has {own.lr:g}: leave it out, or give the two the other way "
            "round"
        )
