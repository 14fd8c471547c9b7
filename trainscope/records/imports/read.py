"""A log of any known format, and what a person states about it, made into a Run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.epoch import EpochRecord
from trainscope.records.imports import (
    csv_log,
    epoch_files,
    event_file,
    json_log,
    long_log,
    series,
    tensorboard,
    text_log,
)
from trainscope.records.imports.binary import is_saved
from trainscope.records.imports.folder import find_log
from trainscope.records.imports.given import Given
from trainscope.records.imports.log import IN_WORDS, Log, NoAccuracyError, is_another_metric
from trainscope.records.imports.names import STEP, TRAIN, meaning, split_in
from trainscope.records.imports.numbering import number_epochs
from trainscope.records.imports.other_metric import other_metric
from trainscope.records.imports.table import is_bare, is_below, is_table
from trainscope.records.imports.tagged import are_tagged
from trainscope.records.imports.text_file import beginning, check_file
from trainscope.records.metric import ACCURACY, LOSS, Metric
from trainscope.records.notation import write_stages
from trainscope.records.run import UNKNOWN, Run, RunStatus

Reader = Callable[[Path, Mapping[str, str], str | None], Log]
Opener = Callable[[Path], object]
FORMATS: Mapping[str, Reader] = {
    "csv": csv_log.read,
    "epochs": epoch_files.read,
    "json": json_log.read,
    "jsonlines": json_log.read_lines,
    "metrics": series.read,
    "mlflow": long_log.read,
    "tensorboard": tensorboard.read,
    "text": text_log.read,
}
"""The reader of each format; `csv` reads Lightning's too, and `json` Hugging Face's."""
FEWEST = 2
"""Values of -1 that stand for none, and others beside them: a single one is an error."""
NAMES = {"huggingface": "json"}
"""Other names of formats."""
DIVERGED = (
    "From epoch {} of the log on to its end a loss or the test is NaN or infinite: the Run is "
    "taken to have diverged."
)
SAVED = "saved"
"""The format of what torch, pickle or NumPy saved."""
MOST_SAVED = 2**40
UNOPENED = (
    "{} is what torch, pickle or NumPy saved: read it with `trainscope import`, or give "
    "run_from_log opened=trainscope.networks.history.open_history"
)
WANDB = (
    "{} is W&B's own record of a run: export the run as CSV, or write run.history().to_csv(FILE) "
    "with W&B's own package, and import that"
)


def recognise(path: Path) -> str:
    """Return the format of a log by how it begins.

    Raises:
        RecordError: There is nothing there, or nothing in it.
    """
    if path.is_dir():
        if long_log.is_run(path):
            return "mlflow"
        if epoch_files.is_folder(path):
            return "epochs"
        return "metrics" if series.is_folder(path) else "tensorboard"
    if path.suffix == ".wandb":
        raise RecordError(WANDB.format(path))
    if tensorboard.is_event_file(path):
        check_file(path, event_file.MOST_BYTES)
        return "tensorboard"
    if is_saved(check_file(path, MOST_SAVED), path):
        return SAVED
    check_file(path)
    start = beginning(path)
    first = start[0].lstrip() if start else ""
    if are_tagged(start):
        return "jsonlines"
    json_file = path.suffix in (".json", ".jsonl") or not json_log.goes_on(first)
    if first.startswith(("{", "[")) and not first.startswith("{'") and json_file:
        if json_log.is_lines(start):
            return "jsonlines"
        if (
            first.startswith(("{", "[{", "[ {", "[["))
            or first in ("[", "[]")
            or path.suffix == ".json"
        ):
            return "json"
    if series.is_metric(path):
        return "metrics"
    if is_table(start) or is_bare(start) or long_log.are_rows(start):
        return "csv"
    return "csv" if path.suffix in (".csv", ".tsv") else "text"


def run_from_log(
    path: Path,
    given: Given | None = None,
    *,
    format: str | None = None,
    run: str | None = None,
    opened: Opener | None = None,
) -> Run:
    """Make a Run from what another tool wrote.

    What was taken for what is the first of the Run's notes. A log that has a test loss and no test
    accuracy becomes a Run whose metric is the loss.

    Args:
        path: The log, or the folder that holds it.
        given: What the log does not say; each is marked as given in the Run.
        format: A key of `FORMATS`; by default recognised.
        run: The name of one run, of a folder or file of several.
        opened: Returns what torch, pickle or NumPy saved as plain lists by name; without it such a
            file is refused.

    Raises:
        RecordError: The log cannot be read, has neither an accuracy nor a test loss, has no
            learning rate and none is given, or holds several runs of which none is named.
    """
    given = given or Given()
    kind = NAMES.get(format or "", format)
    if path.is_dir() and kind != "tensorboard":
        path, run = find_log(path, run)
    kind = kind or recognise(path)
    read = FORMATS[kind] if kind != SAVED else _reader_of_saved(path, opened)
    try:
        log = _read(read, path, given.columns, run)
    except NoAccuracyError as error:
        told = (error.loss, LOSS) if error.loss else None
        told = told or other_metric(error.names, path if kind == "text" else None)
        if told is None or "test_accuracy" in given.columns:
            raise
        name, metric = told
        columns = {**given.columns, "test_accuracy": name}
        given = replace(given, columns=columns, metric=metric)
        log = _read(read, path, columns, run)
        if split_in(log.taken["test_accuracy"]) == TRAIN:
            raise
        log.notes.append(
            f"The log has no test accuracy: its test {metric.name}, '{name}', is the metric of "
            f"this Run, and {metric.better} is better; --metric NAME takes another."
        )
    _check_asked(log, given, path)
    axis = meaning(given.columns.get("epoch", ""))
    if axis is not None and axis.field == STEP:  # those done: at 0 nothing was trained
        log.take_start()
    number_epochs(log, given, str(path))
    rows = [row for row in log.rows if "test_accuracy" in row or "train_loss" in row]
    if not any("test_accuracy" in row for row in rows):
        raise RecordError(f"{path} has no epoch with a test value")
    _leave_placeholders(rows, given, log)
    rows = [row for row in rows if "test_accuracy" in row or "train_loss" in row]
    metric = _metric(rows, given)
    scale = _scale(rows, given, log, metric, path)
    logged = any("lr" in row for row in rows)
    _carry_rates(rows, given, log)
    epochs = tuple(_record(row, scale, given, path, metric) for row in rows)
    _compare(epochs, given, logged, log)
    start = log.start_accuracy
    if log.diverged_at is not None:
        log.notes.append(DIVERGED.format(log.diverged_at))
    return Run(
        kind=given.kind,
        status=RunStatus.FINISHED if log.diverged_at is None else RunStatus.DIVERGED,
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
        start_metric=None if start is None or metric.fault(scale * start) else scale * start,
        given=given.names,
        source=log.source,
        notes=(_taken(log, rows, scale, given, metric), *log.notes),
        metric=metric,
    )


def _read(read: Reader, path: Path, asked: Mapping[str, str], run: str | None) -> Log:
    """Read a log; of lines that tell nothing themselves, a table below them."""
    try:
        return read(path, asked, run)
    except NoAccuracyError:
        if read is not text_log.read or not is_below(path):
            raise
    return csv_log.read(path, asked, run)


def _reader_of_saved(path: Path, opened: Opener | None) -> Reader:
    if opened is None:
        raise RecordError(UNOPENED.format(path))
    document = opened(path)

    def read(path: Path, asked: Mapping[str, str], run: str | None) -> Log:
        return json_log.read_document(path, document, asked, run, SAVED)

    return read


def _check_asked(log: Log, given: Given, path: Path) -> None:
    """Say where another number stands in the place of the accuracy, and refuse training values.

    Raises:
        RecordError: The metric that was named is there of training data alone.
    """
    name = log.taken["test_accuracy"]
    if given.metric is not None and split_in(name) == TRAIN:
        raise RecordError(
            f"{path} has '{given.columns['test_accuracy']}' of training data alone, and a Run's "
            "metric is of the test: let the training log it of validation or test data"
        )
    if given.metric is None and "test_accuracy" in given.columns and is_another_metric(name):
        log.notes.append(
            f"'{name}' stands in the place of the test accuracy, as asked for; --metric says what "
            "it is."
        )


def _metric(rows: list[dict[str, float]], given: Given) -> Metric:
    """Return the metric; one that may be in percent is not where its values do not allow it."""
    metric = ACCURACY if given.metric is None else given.metric
    values = [row["test_accuracy"] for row in rows if "test_accuracy" in row]
    if metric.unit == "%" and metric != ACCURACY and (min(values) < 0 or max(values) > 100):
        return replace(metric, unit="")
    return metric


def _taken(
    log: Log, rows: list[dict[str, float]], scale: float, given: Given, metric: Metric
) -> str:
    """Say what was taken for what."""
    parts = []
    for part, words in IN_WORDS.items():
        name = log.taken.get(part, "")
        there = part == "epoch" or any(part in row for row in rows)
        if part == "epoch" and not name:
            parts.append("epochs counted")
        elif name and there:
            if part == "test_accuracy" and metric != ACCURACY:
                words = f"the metric, {metric.name},"
            parts.append(f"{words} from '{name}'")
        elif part == "lr" and given.rates:
            parts.append("LR as given")
        if part == "test_accuracy":
            unit = f" in {metric.unit}" if metric.unit else ""
            unit = " in percent" if metric.unit == "%" else unit
            parts[-1] += ", a share of 1" if scale == 100 else unit
            if metric != ACCURACY:
                parts[-1] += f" ({metric.better} is better)"
    return f"Read as {log.source}: {', '.join(parts)}."


def _leave_placeholders(rows: list[dict[str, float]], given: Given, log: Log) -> None:
    """Leave out a value of -1, which loops write where they did not test."""
    if given.metric is not None and given.metric.unit != "%":
        return
    values = [row["test_accuracy"] for row in rows if "test_accuracy" in row]
    count = values.count(-1.0)
    real = [value for value in values if value != -1.0]
    if count >= FEWEST and len(real) >= FEWEST and min(real) >= 0:
        for row in rows:
            if row.get("test_accuracy") == -1.0:
                del row["test_accuracy"]
        log.notes.append(f"{count} test values of -1 stand for none, and were left out.")


def _scale(
    rows: list[dict[str, float]], given: Given, log: Log, metric: Metric, path: Path
) -> float:
    """Return what makes the log's values percentages, where the metric is in percent.

    Raises:
        RecordError: Another accuracy of the log makes it unclear.
    """
    if metric.unit != "%":
        return 1.0
    if given.percent is not None:
        return 1.0 if given.percent else 100.0
    if max(row.get("test_accuracy", 0.0) for row in rows) > 1 or log.in_percent:
        return 1.0
    if log.above_one and metric == ACCURACY:
        raise RecordError(
            f"{path}: '{log.taken['test_accuracy']}' is at most 1 and '{log.above_one}' is above "
            "it, so it may be a share of 1 or less than 1 %: say --accuracy share or --accuracy "
            "percent"
        )
    what = "accuracies" if metric == ACCURACY else f"values of {metric.name}"
    log.notes.append(f"The log's {what} are at most 1, so they were read as shares of 1.")
    return 100.0


def _carry_rates(rows: list[dict[str, float]], given: Given, log: Log) -> None:
    """Let a learning rate hold on where the log has none for an epoch."""
    if given.rates:
        return
    rate, carried = None, False
    for row in rows:
        if rate is not None and "lr" not in row:
            row["lr"], carried = rate, True
        rate = row.get("lr")
    if carried:
        log.notes.append("Where the log has no LR for an epoch, the one of the epoch before holds.")


def _record(
    row: Mapping[str, float], scale: float, given: Given, path: Path, metric: Metric
) -> EpochRecord:
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
    accuracy = None if accuracy is None else float(f"{accuracy * scale:.12g}")
    try:
        return EpochRecord(
            epoch=epoch,
            lr=lr,
            train_loss=row.get("train_loss"),
            test_loss=row.get("test_loss"),
            test_metric=accuracy,
            seconds=row.get("seconds"),
            metric=metric,
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
