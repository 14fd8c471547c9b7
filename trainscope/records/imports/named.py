"""Values whose name stands beside them: in the file's name, or over lists of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainscope.records.imports.log import number
from trainscope.records.imports.names import ACCURACY, EPOCH, LOSS, STEP, meaning

KEYS = (
    *("metric", "key", "tag", "metric_name", "metricname", "metric.name", "metric name"),
    *("variable", "scalar", "name", "label"),
)
"""Columns and entries that name a value."""
VALUES = ("value", "values", "metric_value", "metricvalue", "metric value", "val", "y")
"""Those that hold it."""
AXES = ("epoch", "epochs", "step", "steps", "x", "iterations")
"""Those that say where it stands."""
LEAST_TIME = 1e8
"""Seconds since 1970, of any training."""
FEWEST = 2
Pairs = list[tuple[float, float | None]]


def name_in(path: Path, home: Path) -> str:
    """Return the name that a file gives its metric: `run-a-tag-val_acc.csv`, `val/acc.tsv`."""
    name = path.relative_to(home).with_suffix("").as_posix()
    return name.rpartition("-tag-")[2].removeprefix("tag-")


def value_column(names: Sequence[str]) -> int | None:
    """Return the column of a table of one metric: `value`, where no other name means a metric."""
    if any((m := meaning(name)) and m.field in (ACCURACY, LOSS) for name in names):
        return None
    if any(name.lower() in KEYS for name in names):
        return None
    found = [at for at, name in enumerate(names) if name.lower() in ("value", "values")]
    return found[0] if len(found) == 1 else None


def called(names: Sequence[str], path: Path, asked: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of a table, the one of a metric that the file's name says by that name."""
    at = value_column(names)
    name = name_in(path, path.parent)
    if at is None or names[at] in asked.values():
        return tuple(names)
    if meaning(name) is None and name not in asked.values():
        return tuple(names)
    return tuple(name if k == at else other for k, other in enumerate(names))


def pairs_of(raw: Any) -> Pairs | None:
    """Return the steps and values of `[[step, value], ...]`; None of others.

    With a time before the step, as TensorBoard writes them, a step that goes back tells a training
    that was begun again: what was there from that step on is left out.
    """
    if not isinstance(raw, list) or len(raw) < FEWEST:
        return None
    widths = {len(row) if isinstance(row, list) else 0 for row in raw}
    if widths not in ({2}, {3}) or not all(_is_number(cell) for row in raw for cell in row[:-1]):
        return None
    timed = widths == {3}
    if timed and not all(row[0] > LEAST_TIME for row in raw):
        return None
    pairs: Pairs = []
    for row in raw:
        step, value = row[-2:]
        if step != int(step) or isinstance(value, (list, dict)):
            return None
        while pairs and pairs[-1][0] >= step:
            if not timed:
                return None
            pairs.pop()
        pairs.append((float(step), number(value)))
    return pairs


def records_of_names(raw: Any) -> list[dict[str, Any]] | None:
    """Return records, a step each, of lists of steps and values below names; None of others."""
    if isinstance(raw, dict) and isinstance(raw.get("data"), list):
        raw = raw["data"]
    named: list[tuple[str, Any]] = []
    if isinstance(raw, dict):
        named = [(str(name), value) for name, value in raw.items()]
    elif isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
        for each in raw:
            lower = {str(name).lower(): value for name, value in each.items()}
            name = next((lower[key] for key in KEYS if isinstance(lower.get(key), str)), None)
            if name is not None:
                named.append((name, each))
    found: list[tuple[str, float | None, float | None]] = []
    axes = set()
    for name, value in named:
        axis, pairs = "step", pairs_of(value)
        if pairs is None and isinstance(value, dict):
            axis, pairs = _below(value)
        if pairs is None and isinstance(value, list) and meaning(name) is not None:
            return None
        if pairs:
            axes.add(axis)
            found += [(name, step, each) for step, each in pairs]
    return by_step(found, axes.pop() if len(axes) == 1 else "step") if found else None


def by_step(
    found: Iterable[tuple[str, float | None, float | None]], axis: str
) -> list[dict[str, Any]]:
    """Return a record a step, in their order, of (name, step, value)."""
    records: dict[float, dict[str, Any]] = {}
    for name, step, value in found:
        if step is not None and name:
            records.setdefault(step, {axis: step})[name] = value
    return [records[step] for step in sorted(records)]


def _below(entry: Mapping[str, Any]) -> tuple[str, Pairs | None]:
    lower = {str(name).lower(): value for name, value in entry.items()}
    axis = next((name for name in AXES if isinstance(lower.get(name), list)), None)
    value = next((name for name in VALUES if isinstance(lower.get(name), list)), None)
    if axis is None or value is None or len(lower[axis]) != len(lower[value]):
        return "step", None
    found = meaning(axis)
    said = "epoch" if found is not None and found.field == EPOCH else STEP
    pairs = zip(map(number, lower[axis]), map(number, lower[value]), strict=True)
    return said, [(step, value) for step, value in pairs if step is not None]


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)
