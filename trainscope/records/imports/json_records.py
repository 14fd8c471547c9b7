"""Records of values by name, from JSON or from lists in a text, as the epochs of a log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.collect import EpochCollector
from trainscope.records.imports.log import (
    COUNTED,
    Log,
    is_lost,
    no_column,
    number,
    share,
)
from trainscope.records.imports.names import (
    ACCURACY,
    EPOCH,
    LOSS,
    LR,
    PHASES,
    STEP,
    TEST,
    TRAIN,
    VAL,
    ending_names,
    meaning,
    split_in,
    split_of,
)

MOST_RECORDS = 150_000
MOST_DEPTH = 3
"""Entries inside each other of one record."""


@dataclass(frozen=True)
class _Record:
    """What one record of a log says.

    Attributes:
        values: Its numbers, by name.
        epoch: Its epoch as written, None where it has none.
        step: Its step, likewise.
        split: The data it is of, "" where it does not say.
        lost: The names, with their data, whose values are NaN or infinite.
    """

    values: dict[str, float] = field(default_factory=dict)
    epoch: float | None = None
    step: float | None = None
    split: str = ""
    lost: tuple[str, ...] = ()


def read_records(path: Path, raw: Iterable[Any], asked: Mapping[str, str], source: str) -> Log:
    """Read records, each of which may say its epoch or step.

    Args:
        path: Of the log, for messages.
        raw: The records, in their order.
        asked: Entries that the person named, by field.
        source: The format.

    Raises:
        RecordError: One is no record, or there is no accuracy.
    """
    collector = EpochCollector(str(path), asked)
    state = source == "hugging face"
    records = []
    for entry in raw:
        if not isinstance(entry, dict):
            way = ": put a list of their names before rows of numbers"
            raise RecordError(
                f"{path} is no log: it has {str(entry)[:40]} in the place of a record"
                f"{way if isinstance(entry, list) else ''}"
            )
        record = _record(entry, asked, collector)
        if record.values or record.lost:
            records.append(record)
        if len(records) > MOST_RECORDS:
            raise RecordError(
                f"{path} has more than {MOST_RECORDS} records, which is no log of epochs: keep "
                "those of the epochs"
            )
    if "epoch" in asked and all(record.epoch is None for record in records):
        raise no_column(str(path), asked["epoch"], collector.names)
    epochs = [record.epoch for record in records if record.epoch is not None]
    done = state or any(epoch != int(epoch) for epoch in epochs)
    step, ends = 0.0, 0
    tested: list[float | None] = []
    held: set[str] = set()  # names of the epoch that ended right above
    current = 0 if not epochs else math.ceil(epochs[0] - 1e-6) if done else int(epochs[0])
    apart = _apart(records)
    ending = ending_names((name for r in records for name in _split(r, apart)), asked)
    for record in records:
        values = _split(record, apart)
        if record.epoch is not None:
            current = math.ceil(record.epoch - 1e-6) if done else int(record.epoch)
        elif not epochs:
            ended = not ending.isdisjoint(values)
            below = bool(held) and not ended and held.isdisjoint(values)
            below = below and all(split_in(name) in (VAL, TEST) for name in values)
            current = ends if below else ends + 1  # a test loss below its accuracy
            held = held | set(values) if below else set(values) if ended else set()
            if ended:
                held |= set(collector.rows.get(current, ()))
                ends += 1
                tested.append(record.step)
        at = record.step if record.step is not None and record.step >= step else step
        if record.lost:
            collector.lose(current, record.lost)
        # The Trainer says its steps; without them entries count alike.
        collector.add(current, values, (at - step if state else 0.0) or 1.0)
        step = max(step, at)
    log = collector.log(source)
    if not epochs:
        log.notes.append(COUNTED)
        log.take_step_zero(tested[:2])
    log.taken["epoch"] = asked.get("epoch", "epoch" if epochs else "")
    if done:
        log.take_start()
    return log


def _record(
    entry: Mapping[str, Any], asked: Mapping[str, str], collector: EpochCollector
) -> _Record:
    flat: dict[str, Any] = {}
    for name, value in _flat(entry):
        flat[name] = value[0] if isinstance(value, list) and value and _is_rate(name) else value
    split = next((split_of(str(flat[name])) for name in PHASES if name in flat), "")
    values: dict[str, float] = {}
    lost: list[str] = []
    epoch = step = None
    tested = asked.get("test_accuracy")
    for name, value in flat.items():
        found, known = meaning(name), number(value)
        counted = known is None and (name == tested or (found and found.field == ACCURACY))
        if counted:
            known = share(value)
        if known is None:
            if is_lost(value) and collector.wanted(name):
                lost.append(f"{split}/{name}" if split else name)
            continue
        if name == asked.get("epoch", name) and (
            "epoch" in asked or (found is not None and found.field == EPOCH)
        ):
            epoch = known if 0 <= known <= 1e9 else None
        elif found is not None and found.field == STEP:
            step = known
        elif collector.wanted(name):
            values[name] = known
            if counted or (isinstance(value, str) and value.rstrip().endswith("%")):
                collector.signed.add(f"{split}/{name}" if split else name)
    collector.see(f"{split}/{name}" if split else name for name in flat)
    return _Record(values, epoch, step, split, tuple(lost))


def _flat(entry: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values of an entry by the names that lead to them."""
    for name, value in entry.items():
        if isinstance(value, dict) and value and len(value) < 100 and depth < MOST_DEPTH:
            for inner, deep in _flat(value, depth + 1):
                yield f"{name}/{inner}", deep
        else:
            yield str(name), value


def _is_rate(name: str) -> bool:
    found = meaning(name)
    return found is not None and found.field == LR


def _is_bare(name: str, field: str) -> bool:
    found = meaning(name)
    return found is not None and found.field == field and not found.split


def _apart(records: list[_Record]) -> bool:
    """Tell whether accuracies beside a loss are of training: others stand without one."""
    return any(
        not record.split
        and any(_is_bare(name, ACCURACY) for name in record.values)
        and not any(_is_bare(name, LOSS) for name in record.values)
        for record in records
    )


def _split(record: _Record, apart: bool) -> dict[str, float]:
    """Return the numbers of a record, with the data that they are of in their names."""
    if record.split:
        return {f"{record.split}/{name}": value for name, value in record.values.items()}
    if not apart or not any(_is_bare(name, LOSS) for name in record.values):
        return record.values
    return {
        f"{TRAIN}/{name}" if _is_bare(name, ACCURACY) else name: value
        for name, value in record.values.items()
    }
