"""One metric a file or an entry: pairs of a step and a value, whose name stands beside them.

TensorBoard downloads a scalar as `[[wall time, step, value], ...]` or a table, MLflow keeps a file
of `timestamp value step` lines, DVCLive a table each. All become records, one a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.json_records import read_records
from trainscope.records.imports.log import Log, choose_run, number
from trainscope.records.imports.named import by_step, name_in, pairs_of, value_column
from trainscope.records.imports.names import EPOCH, STEP, meaning, split_of
from trainscope.records.imports.table import open_table
from trainscope.records.imports.text_file import check_file, lines

MOST_FILES = 2_000
MOST_BYTES = 16 * 2**20
TABLES, DOCUMENTS, PLAIN = (".csv", ".tsv"), (".json",), ("",)
_LINE = re.compile(r"\s*(\d{9,})\s+(\S+)\s+(\d+)\s*")
_RUN = re.compile(r"run-(?P<run>.+?)-tag-")
Found = list[tuple[str, float | None, float | None]]


def is_metric(path: Path) -> bool:
    """Tell a file of MLflow's of one metric: every line is a time, a value and a step."""
    count = 0
    try:
        for line in lines(path):
            match = _LINE.fullmatch(line)
            if line.strip() and (match is None or (number(match[2]) is None and count == 0)):
                return False
            count += match is not None
            if count >= 3:
                break
    except RecordError:
        return False
    return count > 0


def is_folder(folder: Path) -> bool:
    """Tell a folder of nothing but files of one metric each, two at least."""
    files = _files(folder)
    leaves: dict[str, list[Path]] = {}
    for path in files:
        leaves.setdefault(path.name, []).append(path)
    # One name in several folders is of several runs, unless these are train and val.
    apart = all(
        len(same) < 2 or all(split_of(path.parent.name) for path in same)
        for same in leaves.values()
    )
    return len(files) > 1 and apart and all(_is_one(path) for path in files)


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read a file of one metric, or a folder of such files.

    Args:
        path: The file or folder.
        asked: Metrics that the person named, by field.
        run: One of the runs whose files TensorBoard names like `run-NAME-tag-val_acc.csv`.

    Raises:
        RecordError: A file holds something else, or there is no accuracy in them.
    """
    if not path.is_dir():
        if run is not None:
            choose_run(str(path), [], run)
        return read_records(path, by_step(_found(path, path.parent), "step"), asked, "metrics")
    runs: dict[str, list[Path]] = {}
    for file in _files(path):
        named = _RUN.match(file.name)
        runs.setdefault("" if named is None else named["run"], []).append(file)
    picked = choose_run(str(path), list(runs), run) if run or len(runs) > 1 else next(iter(runs))
    found: Found = []
    for file in runs[picked]:
        found += _found(file, path)
    return read_records(path, by_step(found, "step"), asked, "metrics")


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix in (*TABLES, *DOCUMENTS, *PLAIN):
            found.append(path)
        if len(found) > MOST_FILES:
            return []
    return found


def _is_one(path: Path) -> bool:
    try:
        return bool(_found(path, path.parent, most=1))
    except (RecordError, OSError):
        return False


def _found(path: Path, home: Path, *, most: int | None = None) -> Found:
    """Return what a file holds, (name, step, value); [] where that is not one metric."""
    check_file(path, MOST_BYTES)
    name = name_in(path, home)
    if path.suffix in TABLES:
        return _of_table(path, name, most)
    if path.suffix in DOCUMENTS:
        try:
            pairs = pairs_of(json.loads("\n".join(lines(path))))
        except ValueError:
            return []
        return [] if pairs is None else [(name, step, value) for step, value in pairs]
    if not is_metric(path):
        return []
    parts = (line.split() for line in lines(path))
    return [(name, number(p[2]), number(p[1])) for p in parts if len(p) == 3]


def _of_table(path: Path, name: str, most: int | None) -> Found:
    names, rows = open_table(path)
    value = value_column(names)
    meant = [meaning(each) for each in names]
    axis = next((k for k, m in enumerate(meant) if m and m.field in (STEP, EPOCH)), None)
    if value is None:  # step, acc: DVCLive's
        others = [k for k in range(len(names)) if k != axis and names[k] != "timestamp"]
        told = len(others) == 1 and f"/{name}".endswith(f"/{names[others[0]]}")
        value = others[0] if told else None
    if value is None or axis is None:
        return []
    found: Found = []
    for _, row in rows:
        if len(row) > max(axis, value):
            found.append((name, number(row[axis]), number(row[value])))
        if len(found) == most:
            break
    return found
