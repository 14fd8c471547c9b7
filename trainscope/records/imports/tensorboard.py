"""TensorBoard: one event file, or a folder of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.event_file import scalars
from trainscope.records.imports.log import FROM_ZERO, Log, find_columns, need_accuracy, number

Series = dict[str, list[tuple[int, float]]]


def read(path: Path, asked: Mapping[str, str]) -> Log:
    """Read the scalars of event files; each value of the accuracy ends an epoch.

    Other scalars count with their last value up to that step. A scalar named `epoch` (Lightning's,
    from 0) or `train/epoch` (Hugging Face's, epochs done) says the epoch; otherwise the steps of
    the accuracy say it if they are 1, 2, 3, ... or 0, 1, 2, ...; otherwise epochs are counted.

    Args:
        path: The file, or the folder that holds some.
        asked: Tags that the person named, by field.

    Raises:
        RecordError: There is no event file, or no accuracy in it.
    """
    series = _merged(path)
    tags = tuple(series)
    named = dict(asked)
    lr = next((tag for tag in tags if tag.lower().startswith("lr-")), None)
    named |= {"lr": lr} if lr is not None and "lr" not in named else {}
    found = find_columns(tags, named, str(path))
    need_accuracy(found, tags, str(path))
    ends = series[found["test_accuracy"]]
    log = Log("tensorboard", [], tags)
    epochs = _epochs(ends, _done(series, found.get("epoch")), log)
    for epoch, (step, accuracy) in zip(epochs, ends, strict=True):
        row = {"epoch": float(epoch), "step": float(step)}
        known = number(accuracy)
        row |= {} if known is None else {"test_accuracy": known}
        for part, tag in found.items():
            if part not in ("epoch", "step", "test_accuracy"):
                value = _last(series[tag], step)
                row |= {} if value is None else {part: value}
        log.rows.append(row)
    return log


def is_event_file(path: Path) -> bool:
    """Tell by the name."""
    return ".tfevents." in path.name


def _merged(path: Path) -> Series:
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if is_event_file(file))
        if not files:
            raise RecordError(f"{path} holds no event file of TensorBoard's")
    series: Series = {}
    for file in files:
        for tag, pairs in scalars(file).items():
            series.setdefault(tag, []).extend(pairs)
    # Of a step that was written twice, as by a training that was taken up again, the last counts.
    return {tag: sorted(dict(pairs).items()) for tag, pairs in series.items()}


def _done(series: Series, tag: str | None) -> list[tuple[int, float]]:
    """Return the epochs done at each step, as far as a scalar says them."""
    pairs = series.get(tag or "", [])
    if tag == "epoch":
        return [(step, value + 1) for step, value in pairs]
    return [(step, math.ceil(value - 1e-6)) for step, value in pairs]


def _epochs(ends: list[tuple[int, float]], done: list[tuple[int, float]], log: Log) -> list[int]:
    steps = [step for step, _ in ends]
    said = [_last(done, step) for step in steps]
    numbers = [int(value) for value in said if value is not None]
    ascending = all(before < after for before, after in pairwise(numbers))
    if len(numbers) == len(steps) and ascending and numbers[0] > 0:
        return numbers
    counted = list(range(1, len(steps) + 1))
    if steps == counted:
        return counted
    log.notes.append(
        FROM_ZERO
        if steps == list(range(len(steps)))
        else "The log does not say its epochs; each value of the accuracy counts as one."
    )
    return counted


def _last(pairs: list[tuple[int, float]], step: int) -> float | None:
    value = next((value for at, value in reversed(pairs) if at <= step), None)
    return None if value is None else number(value)
