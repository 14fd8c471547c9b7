"""Records of JSON behind a tool's tag: `json_stats: {...}` (pycls, SlowFast), `:::MLLOG {...}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from trainscope.records.imports.names import split_in

_TAG = re.compile(r"(?:json_stats:|:::MLLOG)\s*(?P<record>\{.*\})\s*$")
_EPOCHS = ("epoch_num", "epoch", "epoch_count")
_OF_ALL = re.compile(r"(\d+)/\d+")


def are_tagged(lines: Iterable[str]) -> bool:
    """Tell whether some lines of a log have such a record."""
    return any(_TAG.search(line) for line in lines)


def records_in(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a log with the data that they are of; other lines are passed over."""
    for line in lines:
        found = _TAG.search(line)
        if found is None:
            continue
        try:
            raw = json.loads(found["record"])
        except (ValueError, RecursionError):  # the last one of a training that was killed
            continue
        yield _named(raw) if {"key", "value"} <= raw.keys() else _typed(raw)


def _typed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the data that its type names: `val_epoch`; of batches, none.

    An epoch of so many, "3/100", is a number.
    """
    kind = str(raw.get("_type", ""))
    if kind.endswith("_iter"):
        return {}
    of_all = _OF_ALL.fullmatch(str(raw.get("epoch", "")))
    named = raw if of_all is None else {**raw, "epoch": int(of_all[1])}
    split = split_in(kind)
    return {**named, "split": split} if split else named


def _named(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a name and a value, at the epoch that its metadata says."""
    about = raw.get("metadata")
    about = about if isinstance(about, dict) else {}
    epoch = next((about[name] for name in _EPOCHS if name in about), None)
    said = {} if epoch is None else {"epoch": epoch}
    return {str(raw["key"]): raw["value"], **said}
