"""The shapes in which a JSON document holds a table: records, columns, or either under a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainscope.records.imports.even import Lists
from trainscope.records.imports.log import number
from trainscope.records.imports.named import AXES, KEYS, VALUES, by_step
from trainscope.records.imports.names import meaning, split_of

_NUMBERED = re.compile(r"(?:epoch[ _-]?)?(\d{1,9})", re.IGNORECASE)
LOOKED_AT = 100
"""Records that tell whether there are tests among them."""
MOST_DEPTH = 3
"""Names over each other under which a table may stand."""


def records_of(raw: Any, lists: Lists, depth: int = 0) -> list[Any] | None:
    """Return the records of a document, None where it holds none.

    These are a list of records or of rows below a header; a column a name, as a list or by the
    number of the row; a record an epoch, by its number; what pandas writes in two parts; or the
    first of these that stands under a name.

    Args:
        raw: The document.
        lists: Makes records of columns.
        depth: Names under which it stands.

    Raises:
        RecordError: It is a column a name, and they have lengths that do not go together.
    """
    if isinstance(raw, list):
        return _rows(raw)
    if not isinstance(raw, dict) or not raw:
        return None
    if {"columns", "data"} <= set(raw) and isinstance(raw["data"], list):
        return _rows([raw["columns"], *raw["data"]])
    numbered = [_number_of(name) for name in raw]
    if all(number is not None for number in numbered):
        values = list(raw.values())
        if all(isinstance(value, dict) and not _are_columns(value, lists) for value in values):
            pairs = zip(numbered, values, strict=True)
            ordered = sorted(pairs, key=lambda pair: pair[0] or 0)  # "10" may stand before "2"
            return [{"epoch": number, **value} for number, value in ordered]
        if not all(isinstance(value, dict) for value in values):
            return None
    tables = [value for value in raw.values() if _is_records(value)]
    if len(tables) == 1 and not any(_column(value) for value in raw.values() if value != tables[0]):
        return list(tables[0])
    columns = {str(name): column for name, cells in raw.items() if (column := _column(cells))}
    for outer, inside in raw.items():
        if isinstance(inside, dict) and (split_of(str(outer)) or meaning(str(outer))):
            named = {f"{outer}/{name}": _column(cells) for name, cells in inside.items()}
            columns |= {name: column for name, column in named.items() if column}
    axis = set(columns) == {"epoch"} and isinstance(raw.get("history"), dict)
    if not axis and any(map(lists.useful, columns)):
        return lists.records(columns)
    found = _below(raw, lists, depth) if depth < MOST_DEPTH else None
    if found is not None:
        return found
    return lists.records(columns) if columns and not axis else None


def _below(raw: Mapping[str, Any], lists: Lists, depth: int) -> list[Any] | None:
    """Return the records below one of the names, None where there are none.

    Raises:
        RecordError: There are tests below several names, which are runs, and none was named.
    """
    found: dict[str, tuple[list[Any], Lists]] = {}
    for name, value in raw.items():
        own = replace(lists, notes=[])
        records = value if _is_records(value) else None
        if isinstance(value, dict):
            records = records_of(value, own, depth + 1)
        if records:
            found[str(name)] = records, own
    tested = {name: each for name, each in found.items() if _is_tested(each[0], lists)}
    if not found:
        return None
    one = next(iter(tested or found))
    several = len(tested) > 1
    name = lists.pick(list(tested)) if several else one
    records, own = found[name]
    lists.notes += own.notes
    lists.picked |= own.picked
    beside = raw.get("epoch")
    if name == "history" and isinstance(beside, list) and len(beside) == len(records):
        pairs = zip(beside, records, strict=True)
        records = [{"epoch": epoch, **record} for epoch, record in pairs]
    return records


def _is_tested(records: list[Any], lists: Lists) -> bool:
    """Tell records with a test value in one of the first."""
    for record in records[:LOOKED_AT]:
        for name, value in record.items() if isinstance(record, dict) else ():
            inside = value if isinstance(value, dict) else {}
            if lists.is_test(str(name)) or any(lists.is_test(f"{name}/{each}") for each in inside):
                return True
    return False


def wide(records: list[Any]) -> list[Any]:
    """Return a record a step, where each record names one value, as trackers export them."""
    if not records or not all(isinstance(each, dict) for each in records):
        return records
    lower = {str(name).lower(): name for name in records[0]}
    key, value, axis = (
        next((lower[name] for name in names if name in lower), None)
        for names in (KEYS, VALUES, AXES)
    )
    if key is None or value is None or axis is None:
        return records
    if not all(isinstance(each.get(key), str) and value in each for each in records):
        return records
    found = [(each[key], number(each.get(axis)), each[value]) for each in records]
    return by_step(found, "epoch" if axis.lower().startswith("epoch") else "step")


def _rows(raw: list[Any]) -> list[Any]:
    """Return records, of rows below a header too."""
    header = raw[0] if raw else None
    if (
        isinstance(header, list)
        and all(isinstance(name, str) for name in header)
        and all(isinstance(row, list) and len(row) == len(header) for row in raw[1:])
    ):
        return [dict(zip(header, row, strict=True)) for row in raw[1:]]
    return raw


def _are_columns(value: Mapping[str, Any], lists: Lists) -> bool:
    """Tell lists by name of one of several runs, which have numbers for names."""
    return any(_column(cells) and lists.useful(str(name)) for name, cells in value.items())


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _column(cells: Any) -> list[Any] | None:
    """Return a column that is a list, or by the numbers of its rows; None where it is neither."""
    if isinstance(cells, list):
        return cells
    if isinstance(cells, Mapping) and cells and all(str(key).isdigit() for key in cells):
        if any(isinstance(value, (list, dict)) for value in cells.values()):
            return None
        return [cells[key] for key in sorted(cells, key=int)]
    return None


def _number_of(name: object) -> int | None:
    found = _NUMBERED.fullmatch(str(name))
    return None if found is None else int(found[1])
