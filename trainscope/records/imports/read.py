"""A log of any known format, and what a person states about it, made into a Run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.epoch import EpochRecord
from trainscope.records.imports import csv_log, tensorboard, text_log, trainer_state
from trainscope.records.imports.given import Given
from trainscope.records.imports.log import Log
from trainscope.records.imports.table import SEPARATORS
from trainscope.records.notation import write_stages
from trainscope.records.run import UNKNOWN, Run

FORMATS: Mapping[str, Callable[[Path, Mapping[str, str]], Log]] = {
    "csv": csv_log.read,
    "huggingface": trainer_state.read,
    "tensorboard": tensorboard.read,
    "text": text_log.read,
}
"""The reader of each format; `csv` reads Lightning's too."""


def recognise(path: Path) -> str:
    """Return the format of a log: by its name, else by how it begins.

    Raises:
        RecordError: There is nothing there, or nothing in it.
    """
    if path.is_dir():
        inside = {"metrics.csv": "csv", "trainer_state.json": "huggingface"}
        for name in inside:
            if (path / name).is_file():
                return inside[name]
        return "tensorboard"
    try:
        with path.open("rb") as file:
            begin = file.read(4096)
    except OSError as error:
        raise RecordError(f"no log can be read from {path}: {error.strerror}") from error
    if not begin:
        raise RecordError(f"{path} is empty")
    if tensorboard.is_event_file(path):
        return "tensorboard"
    if begin.lstrip().startswith(b"{"):
        return "huggingface"
    first = begin.splitlines()[0]
    separated = any(mark.encode() in first.strip() for mark in SEPARATORS)
    named = path.suffix in (".csv", ".tsv")
    return "csv" if named or (separated and b" " not in first.strip()) else "text"


def run_from_log(path: Path, given: Given | None = None, *, format: str | None = None) -> Run:
    """Make a Run from what another tool wrote.

    Args:
        path: The log, or the folder that holds it.
        given: What the log does not say; each is marked as given in the Run.
        format: A key of `FORMATS`; by default recognised.

    Raises:
        RecordError: The log cannot be read, has no accuracy, or has no learning rate and none is
            given.
    """
    given = given or Given()
    kind = format or recognise(path)
    if path.is_dir() and kind in ("csv", "huggingface"):
        path = path / {"csv": "metrics.csv", "huggingface": "trainer_state.json"}[kind]
    log = FORMATS[kind](path, given.columns)
    start = log.take_start(str(path)) if given.untrained_first else {}
    rows = [row for row in log.rows if "test_accuracy" in row or "train_loss" in row]
    if not any("test_accuracy" in row for row in rows):
        raise RecordError(f"{path} has no epoch with a test accuracy")
    scale = _scale(rows, given, log)
    epochs = tuple(_record(row, scale, given, path) for row in rows)
    logged = any("lr" in row for row in rows)
    _compare(epochs, given, logged, log)
    return Run(
        kind=given.kind,
        epochs=epochs,
        schedule=given.schedule or write_stages([(r.epoch, r.lr) for r in epochs]),
        total=given.total or epochs[-1].epoch,
        architecture=given.architecture,
        data=given.data,
        base=given.base or UNKNOWN,
        pruning=given.pruning,
        pretraining=given.pretraining,
        settings=dict(given.settings),
        seed=given.seed,
        parameters=given.parameters,
        flops=given.flops,
        start_accuracy=scale * start["test_accuracy"] if "test_accuracy" in start else None,
        given=given.names,
        source=log.source,
        notes=tuple(log.notes),
    )


def _scale(rows: list[dict[str, float]], given: Given, log: Log) -> float:
    """Return what makes the log's accuracies percentages."""
    if given.percent is not None:
        return 1.0 if given.percent else 100.0
    if max(row.get("test_accuracy", 0.0) for row in rows) > 1:
        return 1.0
    log.notes.append("The log's accuracies are at most 1, so they were read as shares of 1.")
    return 100.0


def _record(row: Mapping[str, float], scale: float, given: Given, path: Path) -> EpochRecord:
    epoch = int(row["epoch"])
    lr = row.get("lr")
    if lr is None:
        if not given.rates:
            raise RecordError(
                f"{path} has no learning rate for epoch {epoch}: give the LR schedule with "
                "--schedule 0:1e-2,30:1e-3 --epochs TOTAL, or name its column with --column lr=NAME"
            )
        if epoch > len(given.rates):
            raise RecordError(
                f"{path} has epoch {epoch}, and the LR schedule given ends after {len(given.rates)}"
            )
        lr = given.rates[epoch - 1]
    lr = float(f"{lr:.6g}")  # TensorBoard keeps float32, and 0.1 * 0.1 is not 0.01
    accuracy = row.get("test_accuracy")
    accuracy = None if accuracy is None else accuracy * scale
    try:
        return EpochRecord(
            epoch=epoch,
            lr=lr,
            train_loss=row.get("train_loss"),
            test_loss=row.get("test_loss"),
            test_accuracy=accuracy,
            seconds=row.get("seconds"),
        )
    except ValueError as error:
        raise RecordError(f"{path}, epoch {epoch}: {error}") from error


def _compare(epochs: tuple[EpochRecord, ...], given: Given, logged: bool, log: Log) -> None:
    """Say where the schedule that is stated and the learning rates in the log disagree."""
    if not logged or not given.rates:
        return
    for record in epochs:
        stated = given.rates[min(record.epoch, len(given.rates)) - 1]
        if abs(stated - record.lr) > 1e-3 * stated:
            log.notes.append(
                f"The LR schedule given has {stated:g} in epoch {record.epoch} and the log "
                f"{record.lr:g}; the log's learning rates are kept."
            )
            return
