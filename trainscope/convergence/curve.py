"""A learning curve as it was recorded, and how it is read from a file or a Run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np

from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.passage import Floats
from trainscope.convergence.scale import Scale
from trainscope.errors import RecordError
from trainscope.records import Metric, Run, RunStatus
from trainscope.records.imports.log import number, share
from trainscope.records.imports.table import read_table
from trainscope.records.metric import ACCURACY, HIGHER, LOWER

MOST_GAPS = 0.2
"""Share of the losses that may be missing."""
COLUMNS = ("epoch", "lr", "accuracy", "loss")
AXES = ("epoch", "step", "token")
"""What a curve may be told over."""
Column = Sequence[float | None] | Floats


class LearningCurve:
    """The test values of one retraining, epoch by epoch, counted from the start of retraining.

    Records are put in the order of their epochs, and records of one epoch are averaged, so that
    the order of ties does not matter. A record without a finite accuracy tells only the LR of its
    epoch. An epoch 0 (before the first step) is welcome: it tells where the curve started.

    Attributes:
        epochs: [N], increasing, 0 or more. Any unit will do: only ratios of epochs matter.
        accuracy: [N], in the metric's unit: percent for accuracies.
        loss: [N], training loss in nats, NaN at epoch 0 where it was not recorded there; None
            where it was not recorded for all other epochs.
        lr_epochs: [M], every epoch with a known LR, whether or not it has an accuracy.
        lr: [M], the learning rate of each.
        momentum: The momentum coefficient, for the record; the estimate reads it off the curves.
        diverged: True where the accuracy stopped being finite before the records stopped.
        metric: What `accuracy` holds: an accuracy, or another metric of either direction.
        per: What `epochs` counts: "epoch", "step" or "token".
        repeated: The first epoch with two values, None where there is none.
        scale: What `quality` is told in.
        unit: What one of `epochs` stands for, in those of the log.
    """

    epochs: Floats
    accuracy: Floats
    loss: Floats | None
    lr_epochs: Floats
    lr: Floats
    momentum: float | None
    diverged: bool
    metric: Metric
    per: str
    repeated: float | None
    scale: Scale
    unit: float

    def __init__(
        self,
        epochs: Column,
        accuracy: Column | None = None,
        lr: Column | float | None = None,
        loss: Column | None = None,
        momentum: float | None = None,
        metric: Metric | Column = ACCURACY,
        *,
        better: str | None = None,
        unit: str = "",
        name: str = "metric",
        per: str = "epoch",
    ) -> None:
        """Check and order the records.

        Args:
            epochs: [N].
            accuracy: [N], in the metric's unit; NaN or None where it was not measured.
            lr: [N], or one number for all.
            loss: [N], nats, or None.
            momentum: The momentum coefficient, where known.
            metric: What `accuracy` holds; or in its place the values [N] of any metric, of which
                `better` says the direction.
            better: "higher" or "lower", for values given by `metric`.
            unit: Of those, like "nats" or "%".
            name: Of those, like "perplexity", which is worked on in its logarithm.
            per: What `epochs` counts: "epoch", "step" or "token".

        Raises:
            RecordError: Lengths differ, an epoch is not finite or negative, or a learning rate is
                not finite or negative, or all are 0; there is no LR or nothing to learn of; or a
                direction or an axis has another name.
        """
        accuracy, metric = _given(accuracy, metric, better, unit, name)
        if lr is None:
            raise RecordError("a learning curve needs the LR of its records: give lr=")
        if per not in AXES:
            raise RecordError(f"per is one of {', '.join(AXES)}, not {per!r}")
        e = _column("epochs", epochs)
        a = _column("accuracy", accuracy, len(e))
        r = _column("lr", [float(lr)] * len(e) if isinstance(lr, (int, float)) else lr, len(e))
        if not np.isfinite(e).all() or (e < 0).any():
            raise RecordError("epochs must be finite and not negative; number them from 1 (or 0)")
        rates = r[e > 0]
        if not np.isfinite(rates).all() or (rates < 0).any() or (len(rates) and not rates.any()):
            raise RecordError(
                "every learning rate after epoch 0 must be finite and positive, or 0 where a "
                "schedule begins or ends"
            )
        finite = np.isfinite(a)
        self.epochs, self.accuracy = _by_epoch(e[finite], a[finite])
        self.lr_epochs, self.lr = _by_epoch(e[e > 0], r[e > 0])
        self.loss = None
        if loss is not None:
            x = _column("loss", loss, len(e))
            self.loss = _without_gaps(self.epochs, _by_epoch(e[finite], x[finite])[1])
        self.momentum = momentum
        self.diverged = _diverged(e, finite)
        self.metric, self.per = metric, per
        at, counts = np.unique(e[finite], return_counts=True)
        self.repeated = float(at[counts > 1][0]) if (counts > 1).any() else None
        self.scale = Scale(metric)
        self.unit = 1.0

    @property
    def quality(self) -> Floats:
        """Return what rises as the run gets better, [N]: points on the curve's scale."""
        return self.scale.quality(self.accuracy)

    def on(self, scale: Scale) -> LearningCurve:
        """Return the same curve with points of another scale."""
        other = copy(self)
        other.scale = scale
        return other

    def told_over(self, epochs: Floats, lr_epochs: Floats, unit: float) -> LearningCurve:
        """Return the same curve with other numbers for its epochs, [N] and [M]."""
        other = copy(self)
        other.epochs, other.lr_epochs, other.unit = epochs, lr_epochs, unit
        return other

    def __len__(self) -> int:
        """Return the number of epochs with a finite accuracy."""
        return len(self.epochs)

    def __repr__(self) -> str:
        """Return the length, the LRs and the last accuracy."""
        if not len(self):
            return f"LearningCurve(no {self.metric.name})"
        rates = ", ".join(f"{lr:g}" for lr in dict.fromkeys(self.lr.tolist()))
        return (
            f"LearningCurve({len(self)} records to epoch {self.epochs[-1]:g}, lr {rates}, "
            f"{self.metric.name} {self.metric.written(float(self.accuracy[-1]), 2)})"
        )

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        metric: Metric | None = None,
        *,
        column: str | None = None,
        per: str | None = None,
    ) -> LearningCurve:
        """Read a table with the columns `epoch,lr,accuracy[,loss]`; others are ignored.

        Commas, semicolons or tabs separate the columns.

        Args:
            path: The file.
            metric: What the values are of, where not accuracies in percent.
            column: The name of their column; by default `accuracy`.
            per: The axis, "epoch", "step" or "token", and so, nearly, the name of its column; by
                default the first of these that is there.

        Raises:
            RecordError: The file cannot be read, a column is missing or there twice, a value is no
                number, or an accuracy is no percentage.
        """
        table = read_table(Path(path))
        names = {name.lower(): name for name in table.columns}
        wanted = "accuracy" if column is None else column.lower()
        if not table.rows:
            raise RecordError(f"{path} has no records; expected a header {','.join(COLUMNS)}")
        axes = {axis: _axis(axis, names) for axis in (AXES if per is None else (per,))}
        per = next((axis for axis, name in axes.items() if name is not None), per or AXES[0])
        over = axes.get(per) or per
        for name in (over, "lr", wanted):
            if name not in names:
                own = "epoch, lr and accuracy" if column is None else f"{per}, lr and {column}"
                raise RecordError(
                    f"{path} has no column '{name}'; its header must name {own}, "
                    "and may name loss, with commas, semicolons or tabs between them; of another "
                    "tool's log make a Run with `trainscope import`"
                )
        columns = {"epoch": over, "lr": "lr", "accuracy": wanted}
        if "loss" in names and wanted != "loss":
            columns["loss"] = "loss"
        table.refuse_twice(columns.values())
        data = {
            part: [
                _number(row[names[name]], f"{path}, line {line}, column {name}", part)
                for line, row in enumerate(table.rows, start=2)
            ]
            for part, name in columns.items()
        }
        of = metric or ACCURACY
        for line, value in enumerate(data["accuracy"], start=2):
            if np.isfinite(value) and of.unit == "%" and not 0 <= value <= 100:
                raise RecordError(
                    f"{path}, line {line}: {of.name} {value:g} is no percentage; it lies between 0 "
                    "and 100"
                )
        return cls(
            data["epoch"], data["accuracy"], data["lr"], data.get("loss"), metric=of, per=per
        )

    @classmethod
    def from_run(cls, run: Run) -> LearningCurve:
        """Read a Run: its test values and training losses, and its start as epoch 0.

        The training loss of a Run is a mean over the epoch; it is carried to the epoch's end, where
        the accuracy is measured.
        """
        epochs: list[float | None] = [float(record.epoch) for record in run.epochs]
        accuracy = [record.test_metric for record in run.epochs]
        rates: list[float | None] = [record.lr for record in run.epochs]
        means = [record.train_loss for record in run.epochs]
        loss = loss_at_ends(means, [record.lr for record in run.epochs])
        if run.start_metric is not None:
            epochs, accuracy = [0.0, *epochs], [run.start_metric, *accuracy]
            rates, loss = [None, *rates], [None, *loss]
        found = cls(epochs, accuracy, rates, loss, run.number("momentum"), run.metric)
        found.diverged |= run.status is RunStatus.DIVERGED
        return found

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        metric: Metric | None = None,
        *,
        column: str | None = None,
        per: str | None = None,
    ) -> LearningCurve:
        """Read a Run (a `.json` file, or the folder of one) or else a CSV file (see `from_csv`).

        Raises:
            RecordError: It is neither, or a Run is told by another metric.
        """
        file = Path(path)
        if file.is_dir() or file.suffix.lower() == ".json":
            run = Run.load(file)
            if column is not None and metric != run.metric:
                raise RecordError(
                    f"{path} is a Run, and told by its {run.metric.label}: leave out --metric, or "
                    "import its log by that metric"
                )
            if per not in (None, "epoch"):
                raise RecordError(f"{path} is a Run, which is told by the epoch, not by the {per}")
            return cls.from_run(run)
        return cls.from_csv(file, metric, column=column, per=per)


_STEPS = ("step", "steps", "global_step", "iteration", "iterations", "iter")
_NAMES = {"epoch": ("epoch",), "step": _STEPS, "token": ("token", "tokens")}


def _axis(per: str, names: Mapping[str, str]) -> str | None:
    """Return the column of an axis, in small letters; None where there is none."""
    return next((name for name in _NAMES[per] if name in names), None)


def _given(
    accuracy: Column | None, metric: Metric | Column, better: str | None, unit: str, name: str
) -> tuple[Column, Metric]:
    """Return the values and what they are of.

    Raises:
        RecordError: There are none or two of them, or their direction is not known.
    """
    if isinstance(metric, Metric):
        if accuracy is None or better is not None:
            raise RecordError(
                "give the values of a metric as accuracy=, or as metric= with better='higher' or "
                "'lower'"
            )
        return accuracy, metric
    if accuracy is not None:
        raise RecordError("a learning curve is of one metric: give accuracy= or metric=, not both")
    if better not in (HIGHER, LOWER):
        raise RecordError(
            f"better says which values are the better ones: 'higher' or 'lower', not {better!r}"
        )
    return metric, Metric(name, unit, better)


def _column(name: str, values: Iterable[float | None], length: int | None = None) -> Floats:
    """Return one column as floats, None as NaN."""
    try:
        column = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{name} must be a list of numbers") from error
    if column.ndim != 1:
        raise RecordError(f"{name} must be one-dimensional, not of shape {column.shape}")
    if length is not None and len(column) != length:
        raise RecordError(f"{name} has {len(column)} values for {length} epochs; give one each")
    return column


def _by_epoch(epochs: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the epochs in order, and the mean of the values of each."""
    # Sorted by value within an epoch, so that the order of ties cannot change the last bit.
    order = np.lexsort((values, epochs))
    unique, start = np.unique(epochs[order], return_index=True)
    counts = np.diff(np.append(start, len(epochs)))
    total = np.add.reduceat(values[order], start) if len(start) else values
    return unique, total / np.maximum(counts, 1)


def _without_gaps(epochs: Floats, loss: Floats) -> Floats | None:
    """Return a loss that is known at every epoch after 0, or None where too little of it is.

    A log has a cell missing here and there, and writes a small loss as 0.
    """
    trained = epochs > 0
    with np.errstate(invalid="ignore"):
        known = trained & np.isfinite(loss) & (loss > 0)
        gaps = trained & ~np.isfinite(loss)
        if (trained & (loss < 0)).any() or not known.any():
            return None
    if gaps.sum() > MOST_GAPS * trained.sum():
        return None
    filled = np.exp(np.interp(epochs, epochs[known], np.log(loss[known])))
    return np.where(trained & ~known, filled, loss)


def _diverged(epochs: Floats, finite: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> bool:
    """Return whether the accuracy was measured at every epoch until it stopped being finite."""
    if finite.all() or not finite.any():
        return False
    last = epochs[finite].max()
    return bool((epochs > last).any()) and bool(finite[epochs <= last].all())


def _number(text: str | None, where: str, part: str) -> float:
    """Return a number, NaN where the cell is empty; `37.28%`, `3/90` and the like are numbers."""
    if text is None or not text.strip():
        return float("nan")
    try:
        return float(text)
    except ValueError as error:
        found = None if "," in text else number(text)
        if found is None and part == "epoch" and "/" in text:
            found = number(text.partition("/")[0])
        if found is None and part == "accuracy":
            found = share(text)
        if found is None:
            raise RecordError(f"'{text}' is not a number ({where})") from error
        return found
