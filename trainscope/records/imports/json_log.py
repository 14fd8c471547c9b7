"""JSON: a record a line (DeiT, mmengine), a list of records, columns, or a Trainer's state.

Hugging Face's `trainer_state.json` holds a list of records under `log_history`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.even import Lists
from trainscope.records.imports.json_records import MOST_DEPTH, read_records
from trainscope.records.imports.json_shapes import records_of, wide
from trainscope.records.imports.log import (
    Log,
    choose_run,
)
from trainscope.records.imports.named import name_in, pairs_of, records_of_names
from trainscope.records.imports.names import (
    meaning,
)
from trainscope.records.imports.tagged import are_tagged, records_in
from trainscope.records.imports.text_file import beginning, check_file, lines, whole

MOST_BYTES = 24 * 2**20
"""A JSON document of more would not fit the memory of a small machine when it is open."""
HISTORY = "log_history"
VALUE = "value"
"""What a scalar is called that has no name."""
CUT = "The last line is no whole record, as of a training that was killed, and was left out."


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
