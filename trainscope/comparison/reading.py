"""Runs and Diagnoses from what a person names: files, folders, globs, run cards."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainscope.comparison.cards import read_cards
from trainscope.errors import RecordError
from trainscope.records import Diagnosis, Kind, Run
from trainscope.records import diagnosis as diagnosis_record
from trainscope.records import run as run_record
from trainscope.records.reading import text_of
from trainscope.records.run import UNKNOWN

SUFFIXES = (".json", ".toml")
FAMILIES = ("trainscope.run/", "trainscope.diagnosis/")
LOGS = (".csv", ".tsv", ".txt", ".log", ".jsonl")
IN_LOGS = ('"log_history"', '"epoch"')


@dataclass(frozen=True)
class RecordsRead:
    """What was read.

    Attributes:
        runs: The runs, of run cards too.
        diagnoses: The Diagnoses.
        notes: Files of a folder or glob that look like records and cannot be read, with the reason.
    """

    runs: tuple[Run, ...]
    diagnoses: tuple[Diagnosis, ...]
    notes: tuple[str, ...]


def read(names: Sequence[str | Path]) -> RecordsRead:
    """Read every Run, Diagnosis and run card named.

    A file that is named must be readable. In a folder or a glob, JSON files of other kinds are
    passed over; records that are damaged or of a later version, untrained networks, and the
    pretraining of other runs that are read, are left out and noted.

    Args:
        names: Files, folders (searched at any depth), or patterns with `*`, `?` or `[`.

    Raises:
        RecordError: A name is empty or leads nowhere, a file named cannot be read, or nothing was
            found.
    """
    runs: list[Run] = []
    met: list[Run] = []
    diagnoses: list[Diagnosis] = []
    notes: list[str] = []
    cards: dict[bytes, Path] = {}
    if any(not str(name).strip() for name in names):  # it would be the current folder
        raise RecordError("an empty name leads to no run: give a file, a folder or a pattern")
    for path, named in _each(names):
        original = _copied(path, cards)
        if original is not None:
            notes.append(f"left out: {path} is a copy of {original}")
            continue
        try:
            records = _read_file(path, named=named)
        except RecordError as error:
            if named:
                raise
            notes.append(f"left out: {error}")
            continue
        read_here = [record for record in records if isinstance(record, Run)]
        (runs if named else met).extend(read_here)
        diagnoses += [record for record in records if isinstance(record, Diagnosis)]
    kept, left = _without_stems(met, runs)
    runs += kept
    notes += left
    if not runs and not diagnoses:
        why = f" ({notes[0]})" if notes else ""
        raise RecordError(
            f"no Run, Diagnosis or run card is in {', '.join(map(str, names))}{why}: give run.json "
            "or diagnosis.json files, folders that hold them, or TOML run cards; of another tool's "
            "log make a Run with `trainscope import`"
        )
    return RecordsRead(tuple(runs), tuple(diagnoses), tuple(notes))


def _each(names: Sequence[str | Path]) -> list[tuple[Path, bool]]:
    """Return every file once, and whether it was named itself by any of the names."""
    found: dict[Path, tuple[Path, bool]] = {}
    for name in names:
        for path, named in _paths(str(name)):
            first, before = found.get(path.resolve(), (path, False))
            found[path.resolve()] = first, named or before
    return list(found.values())


def _without_stems(met: Sequence[Run], named: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs met in folders that are there to be compared, and what is said of the others.

    A pipeline keeps its pretraining beside its retrainings, and the untrained network in it.
    """
    bases = {run.base for run in (*met, *named) if run.base != UNKNOWN}
    dense = [run.kind is Kind.TRAIN and run.pruning is None for run in met]
    stems = [
        is_dense and (run.end in bases or not run.epochs)
        for run, is_dense in zip(met, dense, strict=True)
    ]
    kept = [run for run, stem in zip(met, stems, strict=True) if not stem]
    count = sum(1 for run, stem in zip(met, stems, strict=True) if stem and run.epochs)
    if not count or not (kept or named):
        return (kept, []) if kept or named else (list(met), [])
    what = "a pretraining" if count == 1 else f"{count} pretrainings"
    return kept, [f"left out: {what} of other runs here; name its folder to compare it too"]


def _copied(path: Path, cards: dict[bytes, Path]) -> Path | None:
    """Return the run card that this one repeats; None for the first of its kind, which is kept."""
    if path.suffix != ".toml" or not path.is_file():
        return None
    try:
        first = cards.setdefault(path.read_bytes(), path)
    except OSError:
        return None  # said where it is read
    return None if first == path else first


def _paths(name: str) -> Iterator[tuple[Path, bool]]:
    """Yield the files that a name leads to, and whether each was named itself."""
    path = Path(name)
    if path.is_dir():
        own = path / run_record.FILE_NAME
        if own.is_file():
            yield own, True
        yield from ((found, False) for found in sorted(_within(path)) if found != own)
    elif path.exists():
        yield path, True
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise RecordError(f"no file matches {name}")
        for match in matches:
            inside = Path(match)
            if inside.is_dir():
                yield from ((found, False) for found in sorted(_within(inside)))
            else:
                yield inside, False
    else:
        raise RecordError(f"there is no file or folder {name}")


def _within(folder: Path) -> Iterator[Path]:
    """Yield JSON and TOML files at any depth; hidden ones are half-written or none of ours."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in SUFFIXES and not hidden and path.is_file():
            yield path


def _read_file(path: Path, *, named: bool) -> Sequence[Run | Diagnosis]:
    if path.suffix == ".toml":
        return read_cards(path, strict=named)
    try:
        text = text_of(path)
    except RecordError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        raise RecordError(
            f"{error}; give the run.json or diagnosis.json beside it, or the folder that holds "
            f"one, or make a Run of a history with `trainscope import {path}`"
        ) from error
    schema = _schema(text)
    if schema is None and named:
        _refuse_log(path, text)
    if schema is None and not named:
        # Half of a record is still worth a word; JSON of another kind is not.
        if any(family in text[:4096] for family in FAMILIES):
            raise RecordError(f"{path} is cut short or damaged")
        return ()
    try:
        if schema is not None and schema.startswith("trainscope.diagnosis/"):
            return (Diagnosis.from_json(text),)
        if schema is None or schema.startswith("trainscope.run/"):
            return (Run.from_json(text),)
    except RecordError as error:
        way = (
            "; of another tool's log make a Run with `trainscope import`" if schema is None else ""
        )
        raise RecordError(f"{path}: {error}{way}") from error
    if not named:
        return ()
    raise RecordError(
        f"{path} is of schema {schema!r}: compare reads {run_record.SCHEMA}, "
        f"{diagnosis_record.SCHEMA} and run cards"
    )


def _refuse_log(path: Path, text: str) -> None:
    """Say what to do with somebody else's log.

    Raises:
        RecordError: The file is one, and no record that is cut short.
    """
    ours = any(family in text[:4096] for family in FAMILIES)
    if path.suffix in LOGS or (not ours and any(word in text[:4096] for word in IN_LOGS)):
        raise RecordError(f"{path} is a log, not a Run: make one with `trainscope import {path}`")


def _schema(text: str) -> str | None:
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    return schema if isinstance(schema, str) else None
