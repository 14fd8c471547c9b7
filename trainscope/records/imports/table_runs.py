"""The runs of a table that holds several: by a column of their names, or by columns of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainscope.records.imports.log import choose_run
from trainscope.records.imports.names import split_of
from trainscope.records.imports.table import open_table

RUNS = ("run", "run_name", "run_id", "run name", "name", "seed", "experiment", "exp", "trial")
"""Columns that say of which run a row is."""


def by_columns(path: Path, columns: Sequence[int], run: str | None) -> str:
    """Return the run to read, of those that columns tell apart."""
    found = dict.fromkeys(run_of(row, columns) for _, row in open_table(path)[1])
    return choose_run(str(path), list(found), run)


def run_of(row: Sequence[str], columns: Sequence[int]) -> str:
    """Return the name of a row's run."""
    return ", ".join(cell_of(row, at) for at in columns)


def by_run(names: Mapping[int, str]) -> dict[str, dict[int, str]]:
    """Return the columns of each run of a table with columns like W&B's `run - metric`."""
    runs: dict[str, dict[int, str]] = {}
    for at, name in names.items():
        run, sign, metric = name.rpartition(" - ")
        if sign and run and not metric.endswith(("__MIN", "__MAX")):
            runs.setdefault(run.strip(), {})[at] = metric.strip()
    return runs


def by_rows(
    path: Path, runs: int | None, phase: int | None, run: str | None, *, wide: bool
) -> tuple[str, int | None, int | None]:
    """Return the run to read, and the columns that say of which run and which data a row is.

    A column counts only if its cells bear it out: more than one run, and only names of data.
    """
    found: dict[str, None] = {}
    phases: set[str] = set()
    if runs is not None or phase is not None:
        for _, row in open_table(path)[1]:
            if runs is not None and len(found) < 1000:
                found |= {cell_of(row, runs): None} if cell_of(row, runs) else {}
            if phase is not None and len(phases) < 1000:
                phases.add(split_of(cell_of(row, phase)))
    if "" in phases:
        phase = None
    if wide:
        return "", None, phase
    if len(found) < 2:
        if run is not None and run not in found:
            choose_run(str(path), list(found), run)
        return "", None, phase
    return choose_run(str(path), list(found), run), runs, phase


def cell_of(row: Sequence[str], at: int) -> str:
    """Return a cell of a row, "" where the row is shorter."""
    return row[at].strip() if at < len(row) else ""
