"""A file an epoch: `metrics_epoch_3.json`, as AllenNLP and many scripts leave them in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.json_records import read_records
from trainscope.records.imports.log import Log, choose_run
from trainscope.records.imports.names import EPOCH, meaning
from trainscope.records.imports.text_file import whole

MOST_BYTES = 2**20
"""Of one file; more is no epoch's numbers."""
MOST_FILES = 20_000
_NUMBERED = re.compile(r"(?P<start>.*?)(?P<number>\d+)\.json")
_WORD = re.compile(r"(?<![a-z])(epochs?|ep)[^a-z0-9]*$", re.IGNORECASE)


def is_folder(folder: Path) -> bool:
    """Tell a folder with numbered files of one epoch each, two at least.

    Their names say that the number is an epoch, or each says an epoch of its own inside: files of a
    seed each, with a result alone, are none.
    """
    return bool(_epochs(folder))


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read the files of a folder in the order of their epochs.

    Args:
        path: The folder.
        asked: Entries that the person named, by field.
        run: None, as the files are of one run.

    Raises:
        RecordError: It holds no such files, or there is no accuracy in them.
    """
    if run is not None:
        choose_run(str(path), [], run)
    found = _epochs(path)
    if not found:
        raise RecordError(f"{path} holds no files of an epoch each, like metrics_epoch_3.json")
    return read_records(path, (found[epoch] for epoch in sorted(found)), asked, "epoch files")


def _epochs(folder: Path) -> dict[int, dict[str, Any]]:
    """Return what the files say by their epochs; {} where they are no epochs'."""
    if not folder.is_dir():
        return {}
    groups: dict[str, dict[int, Path]] = {}
    for count, path in enumerate(sorted(folder.iterdir())):
        match = _NUMBERED.fullmatch(path.name)
        if count > MOST_FILES:
            return {}
        if match is not None and len(match["number"]) < 9 and path.is_file():
            groups.setdefault(match["start"], {})[int(match["number"])] = path
    for start, files in groups.items():
        if len(files) < 2:
            continue
        held = {number: _object(path) for number, path in files.items()}
        known = {number: entry for number, entry in held.items() if entry is not None}
        if len(known) < len(held):
            continue
        inside = [_epoch_in(entry) for entry in known.values()]
        if all(epoch is not None for epoch in inside) and len(set(inside)) == len(inside):
            pairs = zip(known.values(), inside, strict=True)
            return {epoch: entry for entry, epoch in pairs if epoch is not None}
        if _WORD.search(start) and all(epoch is None for epoch in inside):
            return {number: {"epoch": number, **entry} for number, entry in known.items()}
    return {}


def _object(path: Path) -> dict[str, Any] | None:
    """Return what a file says of one epoch, None where it says something else."""
    try:
        raw = json.loads(whole(path, MOST_BYTES))
    except (RecordError, ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or "schema" in raw:
        return None
    numbers = [value for value in raw.values() if isinstance(value, int | float)]
    return raw if numbers and not any(map(_is_history, raw.values())) else None


def _is_history(value: object) -> bool:
    """Tell a list of records or of many numbers, which tells of more than one epoch."""
    return isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict)


def _epoch_in(entry: Mapping[str, Any]) -> int | None:
    for name, value in entry.items():
        found = meaning(name)
        whole_number = isinstance(value, int) and not isinstance(value, bool)
        if name == "epoch" or (found is not None and found.field == EPOCH and "best" not in name):
            return value if whole_number else None
    return None
