"""What every format of log is read into: rows of named numbers, an epoch each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainscope.errors import RecordError

FIELDS = ("epoch", "step", "lr", "train_loss", "test_loss", "test_accuracy", "seconds")
NAMES: Mapping[str, tuple[str, ...]] = {
    "epoch": ("epoch", "epochs", "train/epoch"),
    "step": ("step", "global_step", "iteration", "iter"),
    "lr": ("lr", "learning_rate", "train/lr", "train/learning_rate", "train_lr"),
    "train_loss": (
        *(
            "train_loss",
            "train/loss",
            "loss/train",
            "loss_train",
            "train_loss_epoch",
            "training_loss",
        ),
        "loss",
    ),
    "test_loss": (
        *("test_loss", "val_loss", "eval_loss", "valid_loss", "validation_loss", "test/loss"),
        *("val/loss", "eval/loss", "loss/test", "loss/val", "loss_test", "valid/loss"),
    ),
    "test_accuracy": (
        *("test_accuracy", "test_acc", "val_accuracy", "val_acc", "eval_accuracy", "eval_acc"),
        *("valid_accuracy", "valid_acc", "test/accuracy", "test/acc", "val/accuracy", "val/acc"),
        *("eval/accuracy", "accuracy/test", "accuracy/val", "acc/test", "acc/val", "test_top1"),
        *("val_top1", "top1", "acc1", "test_acc1", "val_acc1", "accuracy", "acc"),
    ),
    "seconds": ("seconds", "time", "epoch_time", "epoch_seconds"),
}
"""Names that the columns of logs have, in lower case, the surest first."""


FROM_ZERO = "The log counts epochs from 0; here they count from 1."


@dataclass
class Log:
    """A log as read, before anything is added that a person states.

    Attributes:
        source: The format.
        rows: One an epoch, ascending, by the fields above; what is missing is absent.
        columns: Every name that was found, for messages.
        notes: What a reader should know, each one sentence.
    """

    source: str
    rows: list[dict[str, float]]
    columns: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def count_from_one(self) -> None:
        """Number the epochs from 1 where the log numbers them from 0."""
        if self.rows and self.rows[0]["epoch"] == 0:
            for row in self.rows:
                row["epoch"] += 1
            self.notes.append(FROM_ZERO)

    def take_start(self, path: str) -> dict[str, float]:
        """Take out the first row, of epoch 0, and return it: the network before the first step.

        Raises:
            RecordError: The log has no epoch 0, or nothing after it.
        """
        if FROM_ZERO not in self.notes or len(self.rows) < 2:
            raise RecordError(f"{path} has no epoch 0 before others: leave --untrained-first out")
        self.notes.remove(FROM_ZERO)
        start, *self.rows = self.rows
        for row in self.rows:
            row["epoch"] -= 1
        return start


def find_columns(columns: Iterable[str], asked: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the column of each field that has one.

    Args:
        columns: The names in the log.
        asked: Columns that the person named, by field.
        path: Of the log, for messages.

    Raises:
        RecordError: A column that was named is not there.
    """
    names = list(columns)
    lower = {name.strip().lower(): name for name in reversed(names)}
    found = {}
    for part in FIELDS:
        if part in asked:
            if asked[part] not in names:
                raise RecordError(f"{path} has no column '{asked[part]}': it has {_listed(names)}")
            found[part] = asked[part]
            continue
        name = next((lower[known] for known in NAMES[part] if known in lower), None)
        if name is not None:
            found[part] = name
    return found


def need_accuracy(found: Iterable[str], columns: Iterable[str], path: str) -> None:
    """Refuse a log without a test accuracy.

    Raises:
        RecordError: It has none.
    """
    if "test_accuracy" not in found:
        raise RecordError(
            f"{path} has no test accuracy that is known by its name: it has "
            f"{_listed(list(columns))}; name the column with --column test_accuracy=NAME"
        )


def number(text: object) -> float | None:
    """Return a cell as a finite number, None where it is none."""
    try:
        value = float(str(text).strip().rstrip("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:12]) or "no columns at all"
    return shown + (", ..." if len(names) > 12 else "")
