"""JSON: a record a line (DeiT, mmengine), a list of records, columns, or a Trainer's state.

Hugging Face's `trainer_state.json` holds a list of records under `log_history`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.collect import EpochCollector
from trainscope.records.imports.even import Lists
from trainscope.records.imports.json_shapes import records_of, wide
from trainscope.records.imports.log import (
    COUNTED,
    Log,
    choose_run,
    is_lost,
    no_column,
    number,
    share,
)
from trainscope.records.imports.named import name_in, pairs_of, records_of_names
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
from trainscope.records.imports.tagged import are_tagged, records_in
from trainscope.records.imports.text_file import beginning, check_file, lines, whole

MOST_BYTES = 24 * 2**20
"""A JSON document of more would not fit the memory of a small machine when it is open."""
MOST_RECORDS = 150_000
HISTORY = "log_history"
VALUE = "value"
"""What a scalar is called that has no name."""
MOST_DEPTH = 3
"""Entries inside each other of one record."""
CUT = "The last line is no whole record, as of a training that was killed, and was left out."


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


def read_lines(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read JSON lines; a record without an epoch belongs to the epoch of the record before it.

    Args:
        path: The file.
        asked: Entries that the person named, by field.
        run: None, as a file of JSON lines holds one run.

    Raises:
        RecordError: A line is no record, or there is no accuracy.
    """
    check_file(path, MOST_BYTES)
    notes: list[str] = []
    if are_tagged(beginning(path)):
        return _read(path, records_in(lines(path, cut=True)), asked, run, "json lines")
    log = _read(path, _objects(path, notes), asked, run, "json lines")
    log.notes += notes
    return log


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read a JSON document: a Trainer's state, a list of records, or a column a name.

    In a Trainer's state the training loss and the learning rate of an epoch are means over its
    entries, weighted by the steps that each covers; of several evaluations within an epoch the last
    counts, and one at epoch 0 is of the network before the first step.

    Args:
        path: The file.
        asked: Entries that the person named, by field.
        run: None, as a document holds one run.

    Raises:
        RecordError: It is no such document, or there is no accuracy in it.
    """
    try:
        raw: Any = _loaded(whole(path, MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged or no JSON: it cannot be read as a log") from error
    return read_document(path, raw, asked, run, "json")


def _loaded(text: str) -> Any:
    """Return a document, or the list of those that stand one behind the other."""
    try:
        return json.loads(text)
    except ValueError:
        found, at = [], 0
        decoder = json.JSONDecoder()
        while at < len(text):
            entry, at = decoder.raw_decode(text, at)
            if not isinstance(entry, dict):
                raise
            found.append(entry)
            while at < len(text) and text[at].isspace():
                at += 1
        return found


def read_document(
    path: Path, raw: Any, asked: Mapping[str, str], run: str | None, source: str
) -> Log:
    """Read a document that is open.

    Args:
        path: Of it, for messages.
        raw: Lists, dictionaries, numbers and words.
        asked: Entries that the person named, by field.
        run: None, as a document holds one run.
        source: The format.

    Raises:
        RecordError: It holds no log, or there is no accuracy in it.
    """
    if isinstance(raw, dict) and str(raw.get("schema")).startswith("trainscope."):
        raise RecordError(
            f"{path} is a record of trainscope's own ({str(raw['schema'])[:40]}) already"
        )
    if isinstance(raw, dict) and isinstance(raw.get(HISTORY), list):
        return _read(path, raw[HISTORY], asked, run, "hugging face")
    if isinstance(raw, dict) and "_wandb" in raw:
        raise RecordError(
            f"{path} is W&B's summary, which has the last values alone: export the run's history"
        )
    if isinstance(raw, dict) and "nbformat" in raw:
        raise RecordError(f"{path} is a notebook: copy the log that it shows into a text file")
    if pairs_of(raw) is not None or _are_numbers(raw):
        name = name_in(path, path.parent)
        known = meaning(name) is not None or name in asked.values()
        raw = {name if known and VALUE not in asked.values() else VALUE: raw}
    named = records_of_names(raw)
    if named is not None:
        return _read(path, named, asked, run, source)
    lists = Lists(str(path), asked, run=run)
    records = records_of(raw, lists)
    if records is not None:
        log = _read(path, records, asked, None if lists.picked else run, source)
        log.notes += lists.notes
        return log
    if source == "saved":
        raise RecordError(
            f"{path} holds no lists of epochs, as a checkpoint of weights does not: give the log "
            "of the training, or save its lists by name"
        )
    raise RecordError(
        f"{path} is no log: it is no trainer_state.json, as it has no {HISTORY}, nor a list of "
        "records, nor lines of JSON"
    )


def _holds_lists(raw: Any, depth: int = 0) -> bool:
    """Tell a dictionary with a list of numbers in it, or below it."""
    if not isinstance(raw, dict) or depth > MOST_DEPTH:
        return False
    return any(
        (_are_numbers(value) and meaning(str(name)) is not None) or _holds_lists(value, depth + 1)
        for name, value in raw.items()
    )


def _are_numbers(raw: Any) -> bool:
    return isinstance(raw, list) and len(raw) > 1 and all(isinstance(v, (int, float)) for v in raw)


def is_lines(start: list[str]) -> bool:
    """Tell whether text begins with a record a line, and not with a document."""
    try:
        first = json.loads(start[0])
    except (ValueError, RecursionError):
        return False
    if not isinstance(first, dict) or {HISTORY, "schema", "_wandb"} & set(first):
        return False
    nested = [v for v in first.values() if isinstance(v, (list, dict))]
    if len(start) == 1 and any(isinstance(v, list) or len(nested) == len(first) for v in nested):
        return False  # columns
    if len(start) == 1 and any(map(_holds_lists, nested)):
        return False  # columns below a name, beside what was reached
    return len(start) > 1 or any(meaning(str(name)) is not None for name in first)


def goes_on(line: str) -> bool:
    """Tell a line on which words stand behind a record, as a text log may have them."""
    try:
        _, end = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return any(letter.isalpha() for letter in line[end : end + 20])


def _objects(path: Path, notes: list[str]) -> Iterable[Any]:
    broken = 0
    for place, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        if broken:
            raise _no_json(path, broken)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.lstrip().startswith("{"):
                raise _no_json(path, place) from error
            broken = place
            continue
        yield entry
    if broken == 1:
        raise _no_json(path, broken)
    if broken:
        notes.append(CUT)


def _no_json(path: Path, line: int) -> RecordError:
    return RecordError(f"{path}, line {line} is no JSON: mend it or cut it off")


def _read(
    path: Path, raw: Iterable[Any], asked: Mapping[str, str], run: str | None, source: str
) -> Log:
    if run is not None:
        choose_run(str(path), [], run)
    if isinstance(raw, list):
        raw = wide(raw)
    return read_records(path, raw, asked, source)


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
