"""The results of a store as rows: one flat dictionary a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainscope.errors import StudyError
from trainscope.records import Run, files
from trainscope.records.run import FILE_NAME
from trainscope.studies.plain import KEY
from trainscope.studies.queues import DIGEST, ERROR, ROW, STATUS
from trainscope.studies.store import Store

Row = dict[str, Any]
"""A run's columns by name: texts, numbers, truths or None."""


def results(store: Store | str | Path, name: str | None = None) -> list[Row]:
    """Return a row of every run that is done, with the same columns in all.

    A run that several studies share has one row. In it are the digest, the fields of the spec by
    dotted names (`action.ratio`, `base.recipe`, `settings.batch_size`), and every number of the
    Run: `dense`, `pruned`, `pruned_loss`, `ta`, `early` (the metric after 5 % of the epochs),
    `final`, `best`, and the scalars of probes as `pruned.jacobian.mean_jsv`. What a run does not
    have is None. Curves stay in the run's folder.

    Args:
        store: It, or its place.
        name: Of one study; by default all that are in the store.

    Raises:
        StudyError: There is no such store or study.
    """
    if not isinstance(store, Store):
        store = Store(store, make=False)
    found: dict[str, Row] = {}
    for each in store.studies if name is None else [name]:
        for entry in store.entries(each, (ROW,)):
            if ROW in entry.attrs:
                row = {"study": each, **entry.attrs[ROW]}
                found.setdefault(row["digest"], row)
    layouts = dict.fromkeys(map(tuple, found.values()))  # few, where the rows are many
    columns = tuple(dict.fromkeys(column for layout in layouts for column in layout))
    blank: Row = dict.fromkeys(columns)
    return [row if tuple(row) == columns else blank | row for row in found.values()]


def runs_of(store: Store | str | Path, names: Sequence[str] | None = None) -> list[Run]:
    """Return the Runs of studies, with their curves, from their folders: `compare` takes them.

    Args:
        store: It, or its place.
        names: Of the studies; by default all that are in the store.

    Raises:
        StudyError: There is no such store or study.
        RecordError: A run's file is damaged.
    """
    if not isinstance(store, Store):
        store = Store(store, make=False)
    found: dict[str, Run] = {}
    for name in store.studies if names is None else names:
        folder = store.folder_of(name)
        for entry in store.entries(name, (ROW,)):
            digest = entry.attrs.get(ROW, {}).get("digest", "")
            path = folder / digest[:KEY]
            if digest and (path / FILE_NAME).is_file():
                found.setdefault(digest, Run.load(path))
    return list(found.values())


def planned_digests(rows: Sequence[Row]) -> set[str]:
    """Return what names the runs of some rows in a plan, where those of a search have no LR yet."""
    return {row.get("search.slot") or row["digest"] for row in rows}


def failures(store: Store, name: str) -> list[tuple[str, str]]:
    """Return the digest and the reason of every run of a study that failed."""
    return [
        (entry.attrs[DIGEST], entry.attrs[ERROR])
        for entry in store.entries(name, (ERROR, STATUS))
        if ERROR in entry.attrs and entry.state == "FAIL"
    ]


CSV_MARK, PARQUET_MARK = "digest", "PAR1"
"""What tables of results begin with, so that no other file is written over."""


def as_csv(rows: Sequence[Row]) -> str:
    """Write rows as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["digest"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: str | Path) -> list[Row]:
    """Read what `as_csv` wrote: numbers become numbers, and empty cells None.

    Raises:
        StudyError: It cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read as a table of results: {error}") from error
    return [{name: _cell(text) for name, text in row.items()} for row in rows]


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write rows as Parquet; a column of numbers and texts becomes one of texts.

    Args:
        rows: With the same columns in all, as `results` returns them.
        path: The file.

    Raises:
        StudyError: pyarrow is not installed.
    """
    try:
        from pyarrow import Table
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise StudyError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow, or take --csv"
        ) from error
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    for name, values in columns.items():
        kinds = {float if type(v) is int else type(v) for v in values if v is not None}
        if len(kinds) > 1:
            columns[name] = [None if value is None else str(value) for value in values]
    with files.replacing(path, over=PARQUET_MARK) as file:
        write_table(Table.from_pydict(columns), file)


def _cell(text: str | None) -> object:
    if text is None or text == "":
        return None
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
