"""Logs that are written for a test, read as trainscope reads a file."""

from __future__ import annotations

from pathlib import Path

from trainscope.records import Run
from trainscope.records.imports import Given, run_from_log

GIVEN = Given(rates=(0.1,) * 20, schedule="0:0.1", total=20)


def read(tmp_path: Path, text: str, name: str = "log.txt", given: Given | None = None) -> Run:
    """Return the Run of a log."""
    path = tmp_path / name
    path.write_text(text)
    return run_from_log(path, given)
