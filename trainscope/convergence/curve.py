"""A learning curve as it was recorded, and how it is read from a file or a Run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.passage import Floats
from trainscope.errors import RecordError
from trainscope.records import Metric, Run
from trainscope.records.imports.table import read_table
from trainscope.records.metric import ACCURACY

MOST_GAPS = 0.2
"""Share of the losses that may be missing."""
COLUMNS = ("epoch", "lr", "accuracy", "loss")
Column = Sequence[float | None] | Floats
Values = TypeVar("Values", float, Floats)


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
    """

    epochs: Floats
    accuracy: Floats
    loss: Floats | None
    lr_epochs: Floats
    lr: Floats
    momentum: float | None
    diverged: bool
    metric: Metric

    def __init__(
        self,
        epochs: Column,
        accuracy: Column,
        lr: Column | float,
        loss: Column | None = None,
        momentum: float | None = None,
        metric: Metric = ACCURACY,
    ) -> None:
        """Check and order the records.

        Args:
            epochs: [N].
            accuracy: [N], in the metric's unit; NaN or None where it was not measured.
            lr: [N], or one number for all.
            loss: [N], nats, or None.
            momentum: The momentum coefficient, where known.
            metric: What `accuracy` holds.

        Raises:
            RecordError: Lengths differ, an epoch is not finite or negative, or a learning rate is
                not finite or negative, or all are 0.
        """
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
        self.metric = metric

    @property
    def quality(self) -> Floats:
        """Return what rises as the run gets better, [N]: see `turned`."""
        return turned(self.metric, self.accuracy)

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
    def from_csv(cls, path: str | Path) -> LearningCurve:
        """Read a table with the columns `epoch,lr,accuracy[,loss]`; others are ignored.

        Commas, semicolons or tabs separate the columns.

        Raises:
            RecordError: The file cannot be read, a column is missing or there twice, a value is no
                number, or an accuracy is no percentage.
        """
        table = read_table(Path(path))
        names = {name.lower(): name for name in table.columns}
        if not table.rows:
            raise RecordError(f"{path} has no records; expected a header {','.join(COLUMNS)}")
        for name in COLUMNS[:3]:
            if name not in names:
                raise RecordError(
                    f"{path} has no column '{name}'; its header must name epoch, lr and accuracy, "
                    "and may name loss, with commas, semicolons or tabs between them; of another "
                    "tool's log make a Run with `trainscope import`"
                )
        table.refuse_twice(COLUMNS)
        data = {
            name: [
                _number(row[names[name]], f"{path}, line {line}, column {name}")
                for line, row in enumerate(table.rows, start=2)
            ]
            for name in COLUMNS
            if name in names
        }
        for line, value in enumerate(data["accuracy"], start=2):
            if np.isfinite(value) and not 0 <= value <= 100:
                raise RecordError(
                    f"{path}, line {line}: accuracy {value:g} is no percentage; it lies between 0 "
                    "and 100"
                )
        return cls(data["epoch"], data["accuracy"], data["lr"], data.get("loss"))

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
        return cls(epochs, accuracy, rates, loss, run.number("momentum"), run.metric)

    @classmethod
    def from_file(cls, path: str | Path) -> LearningCurve:
        """Read a Run (a `.json` file, or the folder of one) or else a CSV file.

        Raises:
            RecordError: It is neither.
        """
        file = Path(path)
        if file.is_dir() or file.suffix.lower() == ".json":
            return cls.from_run(Run.load(file))
        return cls.from_csv(file)


def turned(metric: Metric, values: Values) -> Values:
    """Return values as what rises with quality, or such as values again: it is its own inverse.

    Where lower is better it is what a percentage lacks of 100, so that an error is to the estimate
    what the accuracy is; of other metrics it is the negative value.
    """
    if metric.sign > 0:
        return values
    return 100.0 - values if metric.unit == "%" else -values


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


def _number(text: str | None, where: str) -> float:
    """Return a number, NaN where the cell is empty."""
    if text is None or not text.strip():
        return float("nan")
    try:
        return float(text)
    except ValueError as error:
        raise RecordError(f"'{text}' is not a number ({where})") from error
