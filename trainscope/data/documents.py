"""Text files and folders as documents: of a training and a test half, with labels or without."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainscope.errors import DataError

TEST_SHARE = 10
"""One of so many documents, or the last of so many parts of one text, is for the test."""
MOST_BYTES = 2**26
TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
_ENDINGS = (".txt", ".py", ".md", ".rst", ".text")
"""What is read of a folder; a file may have any name."""
_HALVES = {"train": ("train",), "test": ("test", "validation", "valid", "val", "dev")}


@dataclass
class Half:
    """The documents of one half, and their labels where they have some."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, text: str, label: str | None) -> None:
        """Add a document."""
        self.texts.append(text)
        if label is not None:
            self.labels.append(label)


def halves_of(place: Path) -> tuple[Half, Half, bool]:
    """Return the documents of the train and the test half, and whether some were not read.

    Raises:
        DataError: There is no text.
    """
    said = {} if place.is_file() else {half: _half_of(place, half) for half in _HALVES}
    budget = _Budget()
    if all(said.values()) and said:
        halves = [Half(), Half()]
        for half, part in zip(halves, ("train", "test"), strict=True):
            for text, label in _documents(said[part] or place, budget):
                half.add(text, label)
        train, test = halves
    else:
        train, test = _divided(list(_documents(place, budget)), place)
    for half, which in ((train, "train"), (test, "test")):
        if not half.texts:
            raise DataError(f"{place} has no text for the {which} half: give more of it")
        if half.labels and len(half.labels) != len(half.texts):
            raise DataError(f"some texts of {place} have a label and some have none")
    if bool(train.labels) != bool(test.labels):
        raise DataError(f"one half of {place} has labels and the other has none")
    return train, test, budget.cut


def _divided(documents: list[tuple[str, str | None]], place: Path) -> tuple[Half, Half]:
    if len(documents) < TEST_SHARE:
        if any(label is not None for _, label in documents):
            raise DataError(f"{place} has {len(documents)} labelled texts: give {TEST_SHARE}")
        text = "\n".join(text for text, _ in documents)
        at = len(text) * (TEST_SHARE - 1) // TEST_SHARE
        at = text.rfind("\n", 0, at) + 1 or at
        return Half([text[:at]]), Half([text[at:]])
    order = list(range(len(documents)))
    if documents[0][1] is not None:  # tables are often sorted by class
        random.Random(0).shuffle(order)
    halves = Half(), Half()
    for number, index in enumerate(order):
        halves[number % TEST_SHARE == TEST_SHARE - 1].add(*documents[index])
    return halves


@dataclass
class _Budget:
    """How much may still be read."""

    left: int = MOST_BYTES
    cut: bool = False

    def text(self, path: Path) -> str:
        """Return the text of a file, or as much of it as may be read.

        Raises:
            DataError: It cannot be read, or is no text.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(self.left + 1)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(raw) > self.left:
            raw, self.cut = raw[: self.left], True
        self.left -= len(raw)
        if b"\0" in raw[: 2**16]:
            raise DataError(f"{path} holds NUL bytes and is no text: give text in UTF-8")
        return raw.decode("utf-8", errors="ignore" if self.cut else "replace")


def _half_of(folder: Path, half: str) -> Path | None:
    """Return the one file or folder of a half, by its name."""
    found = [
        each
        for each in sorted(folder.iterdir())
        if (each.stem if each.is_file() else each.name).lower() in _HALVES[half]
        and (each.is_dir() or _is_text(each))
    ]
    return found[0] if len(found) == 1 else None


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in (*_ENDINGS, *TABLES, *LINES)


def _documents(place: Path, budget: _Budget) -> Iterator[tuple[str, str | None]]:
    """Yield the documents of a file or folder, each with its label if it has one."""
    if place.is_dir():
        files = sorted(each for each in place.rglob("*") if each.is_file() and _is_text(each))
        if not files:
            raise DataError(f"no text in the folder {place}: it takes {', '.join(_ENDINGS)} files")
        for file in files:
            if not budget.left:
                budget.cut = True
                return
            yield from _documents(file, budget)
    elif place.suffix.lower() in TABLES:
        yield from _rows(place, budget.text(place))
    elif place.suffix.lower() in LINES:
        yield from _objects(place, budget.text(place))
    elif text := budget.text(place):
        yield text, None


def _rows(place: Path, text: str) -> Iterator[tuple[str, str | None]]:
    csv.field_size_limit(MOST_BYTES)
    tabs = TABLES[place.suffix.lower()] == "\t"
    form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    rows = csv.DictReader(io.StringIO(text, newline=""), **form)
    names = {name.strip().lower(): name for name in rows.fieldnames or () if name}
    if "text" not in names and "sentence" in names:
        names["text"] = names["sentence"]
    if "text" not in names:
        raise DataError(
            f"{place} has no column 'text' in its first line: name the columns text and label"
        )
    for row in rows:
        yield row[names["text"]] or "", row.get(names.get("label", "")) or None


def _objects(place: Path, text: str) -> Iterator[tuple[str, str | None]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {place} is no JSON: write one object a line") from (
                error
            )
        if not isinstance(found, dict) or not isinstance(found.get("text"), str):
            raise DataError(f"line {number} of {place} has no 'text' that is a word or sentence")
        label = found.get("label")
        yield found["text"], None if label is None else str(label)
