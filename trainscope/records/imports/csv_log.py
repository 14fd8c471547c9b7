"""CSV with named columns, and Lightning's metrics.csv, whose rows hold a few columns each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.log import Log, find_columns, need_accuracy, number
from trainscope.records.imports.table import read_table

Rows = list[dict[str, float]]
Cells = Sequence[Mapping[str, str | None]]


def read(path: Path, asked: Mapping[str, str]) -> Log:
    """Read a CSV file.

    Rows of one epoch are merged: of each column the last number of the epoch counts. Lightning's
    CSVLogger writes the learning rate and the losses of an epoch in rows of their own, and counts
    epochs from 0, as is told by its `step` column.

    Args:
        path: The file.
        asked: Columns that the person named, by field.

    Raises:
        RecordError: It has no header, no rows, no epochs, no accuracy, or a column twice.
    """
    table = read_table(path)
    rows, columns = table.rows, tuple(name for name in table.columns if name)
    if not rows or len(columns) < 2:
        raise RecordError(f"{path} is no CSV file with named columns and a row an epoch")
    lightning = "step" in columns and "epoch" in columns and is_sparse(rows)
    named = dict(asked)
    if lightning:  # LearningRateMonitor writes lr-SGD
        lr = next((name for name in columns if name.lower().startswith("lr-")), None)
        named |= {"lr": lr} if lr is not None and "lr" not in named else {}
    found = find_columns(columns, named, str(path))
    table.refuse_twice(found.values())
    need_accuracy(found, columns, str(path))
    if "epoch" not in found:
        raise RecordError(f"{path} has no column of epochs: name it with --column epoch=NAME")
    merged = _merge(rows, found, path)
    log = Log("lightning" if lightning else "csv", merged, columns)
    log.count_from_one()
    return log


def is_sparse(rows: Cells) -> bool:
    """Tell whether rows hold a few of the columns each."""
    return any(
        not (cell or "").strip() for row in rows for cell in row.values() if cell is not None
    )


def _merge(rows: Cells, found: Mapping[str, str], path: Path) -> Rows:
    epochs: dict[int, dict[str, float]] = {}
    early: dict[str, float] = {}  # from rows without an epoch: they belong to the next one
    for place, row in enumerate(rows, start=2):
        values = {part: number(row[name]) for part, name in found.items() if part != "epoch"}
        known = {part: value for part, value in values.items() if value is not None}
        cell = (row[found["epoch"]] or "").strip()
        if not cell:
            early |= known
            continue
        epoch = number(cell)
        if epoch is None or epoch != int(epoch) or epoch < 0:
            raise RecordError(f"{path}, line {place}: '{cell}' is no epoch")
        target = epochs.setdefault(int(epoch), {})
        target |= early | known
        early = {}
    if not epochs:
        raise RecordError(f"{path} has no epoch in its column '{found['epoch']}'")
    return [{"epoch": float(n), **epochs[n]} for n in sorted(epochs)]
