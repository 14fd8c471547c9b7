"""Text as data: `text:FILE`. Token sequences to be continued, or texts with a label each."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainscope.data.dataset import Dataset
from trainscope.data.split import Augment
from trainscope.data.tokens import Tokenizer, tokenizer_for
from trainscope.errors import DataError
from trainscope.task import Batch, Classification, LanguageModelling, MaskedLanguageModelling, Task
from trainscope.task.classification import IGNORED

LENGTH = 128
"""Tokens of a sequence by default, where the network takes as many."""
TEST_SHARE = 10
"""One of so many documents, or the last of so many parts of one text, is for the test."""
TEST_TOKENS = 2**14
"""A test is on at most so many tokens, evenly spaced over the test half."""
MOST_BYTES = 2**26
MASKED_SHARE = 0.15
MOST_CLASSES = 1000
"""Labels that are whole numbers below it are taken as the network's outputs."""
TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
_ENDINGS = (".txt", ".py", ".md", ".rst", ".text")
"""What is read of a folder; a file may have any name."""
_HALVES = {"train": ("train",), "test": ("test", "validation", "valid", "val", "dev")}


@dataclass(frozen=True)
class Reading:
    """How text becomes the batches of one network.

    Attributes:
        folder: Where its tokenizer lies.
        vocabulary: How many tokens it knows; None where that is not known.
        context: How many tokens it takes at most; None likewise.
        length: Tokens of a sequence, where a person says so.
    """

    folder: Path | None = None
    vocabulary: int | None = None
    context: int | None = None
    length: int | None = None

    @property
    def tokens(self) -> int:
        """Return the number of tokens of a sequence.

        Raises:
            DataError: The network does not take as many.
        """
        if self.length is not None and self.context is not None and self.length > self.context:
            raise DataError(
                f"sequences of {self.length} tokens were asked for and the network takes "
                f"{self.context} at most: give a smaller --sequence-length"
            )
        if self.length is not None and self.length < 2:
            raise DataError("--sequence-length is 2 tokens or more")
        return self.length or min(self.context or LENGTH, LENGTH)


@dataclass(frozen=True)
class TokenSplit:
    """Sequences of tokens, each as long as the others.

    Attributes:
        ids: [sequences, tokens].
        mask: The id that tokens are masked with; None where the next token is asked for.
        kept: Ids that are never masked.
        augment: None: text is taken as it is.
    """

    ids: Tensor
    mask: int | None = None
    kept: frozenset[int] = frozenset()
    augment: Augment | None = None

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.ids)

    def batch(self, indices: Tensor) -> Batch:
        """Return `input_ids` and `labels`, [N, tokens] each; nothing is filled up, so no mask.

        Where tokens are masked, which ones depends on the sequence's index alone, so that every
        pass over a sequence asks for the same ones; the labels of the others are -100.
        """
        ids = self.ids[indices]
        if self.mask is None:
            return {"input_ids": ids, "labels": ids.clone()}
        hidden = torch.stack([self._hidden(ids[i], int(each)) for i, each in enumerate(indices)])
        return {
            "input_ids": ids.masked_fill(hidden, self.mask),
            "labels": ids.masked_fill(~hidden, IGNORED),
        }

    def _hidden(self, ids: Tensor, index: int) -> Tensor:
        drawn = torch.rand(len(ids), generator=torch.Generator().manual_seed(index))
        special = torch.tensor(sorted(self.kept), dtype=ids.dtype)
        drawn = drawn.masked_fill(torch.isin(ids, special), 2.0)
        hidden = drawn < MASKED_SHARE
        hidden[drawn.argmin()] = True  # one at least, or the sequence would have no loss
        return hidden


@dataclass(frozen=True)
class LabelledSplit:
    """Texts with a class each, filled up to one length.

    Attributes:
        ids: [texts, tokens].
        there: 1 where a token is the text's, 0 where it fills up, [texts, tokens].
        labels: [texts].
        augment: None: text is taken as it is.
    """

    ids: Tensor
    there: Tensor
    labels: Tensor
    augment: Augment | None = None

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.ids)

    def batch(self, indices: Tensor) -> Batch:
        """Return `input_ids` and `attention_mask`, [N, tokens], and `labels`, [N]."""
        return {
            "input_ids": self.ids[indices],
            "attention_mask": self.there[indices],
            "labels": self.labels[indices],
        }


@dataclass
class _Half:
    """The documents of one half, and their labels where they have some."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def load(place: Path, reading: Reading, task: Task | None = None) -> Dataset:
    r"""Return text as a data set: sequences for language models, labelled texts for classifiers.

    A file of any ending is one text, whose last tenth is the test half. A table (.csv, .tsv) or
    JSON lines (.jsonl) have a document in the column `text` of each row, and in `label` its class;
    of these, and of the files of a folder, every tenth is for the test. A folder with train.\* and
    test.\* (or validation.\*), files or folders, has its halves said.

    Args:
        place: The file or folder.
        reading: The network's tokenizer and lengths.
        task: What the network is asked; by default the next token, or where there are labels the
            class.

    Raises:
        DataError: It is not there, is no text, or is too short for a sequence in each half.
    """
    if not place.exists():
        raise DataError(f"there is no file or folder {place}: 'text:FILE' takes text, or a folder")
    train, test, cut = _halves(place)
    labelled = bool(train.labels)
    name, notes = f"text:{place}", []
    if cut:
        notes.append(f"Of {place} the first {MOST_BYTES / 2**20:.0f} MiB were read.")
    if task is None:
        task = Classification() if labelled else LanguageModelling()
    tokenizer = tokenizer_for(reading.folder, reading.vocabulary)
    if isinstance(task, LanguageModelling):
        return _sequences(name, (train, test), tokenizer, reading, task, notes)
    if not labelled:
        raise DataError(
            f"{place} has no labels for {type(task).__name__}: give a table (.csv, .tsv, .jsonl) "
            "with the columns text and label"
        )
    return _classified(name, (train, test), tokenizer, reading, task, notes)


def _sequences(
    name: str,
    halves: tuple[_Half, _Half],
    tokenizer: Tokenizer,
    reading: Reading,
    task: Task,
    notes: list[str],
) -> Dataset:
    mask = None
    if isinstance(task, MaskedLanguageModelling):
        mask = tokenizer.mask
        if mask is None:
            raise DataError(f"the tokenizer in {reading.folder} has no token that masks others")
    length, splits = reading.tokens, []
    for which, half in zip(("train", "test"), halves, strict=True):
        ids = _packed(half.texts, tokenizer, length)
        if len(ids) < 2:
            raise DataError(
                f"the {which} half of {name.removeprefix('text:')} has {len(ids)} sequences of "
                f"{length} tokens, and 2 are the least: give more text, or a smaller "
                "--sequence-length"
            )
        splits.append(ids)
    train, test = splits
    most = max(2, TEST_TOKENS // length)
    if len(test) > most:
        notes.append(f"Tested on {most} of the {len(test):,} test sequences, evenly spaced.")
        test = test[torch.linspace(0, len(test) - 1, most).round().long()]
    kept = tokenizer.special
    return Dataset(
        name,
        TokenSplit(train, mask, kept),
        TokenSplit(test, mask, kept),
        None,
        (length,),
        notes=tuple(notes),
        task=task,
    )


def _packed(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Return documents one after the other, cut into sequences; a rest is left out."""
    end = [] if tokenizer.end is None else [torch.tensor([tokenizer.end])]
    parts = [part for text in texts for part in (tokenizer.plain(text), *end)]
    if len(texts) == 1:
        parts = parts[:1]
    ids = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    return ids[: len(ids) // length * length].view(-1, length)


def _classified(
    name: str,
    halves: tuple[_Half, _Half],
    tokenizer: Tokenizer,
    reading: Reading,
    task: Task,
    notes: list[str],
) -> Dataset:
    names = sorted({label for half in halves for label in half.labels}, key=_order)
    if len(names) < 2:
        raise DataError(f"{name} has one class, {names[0]!r}: give texts of two or more")
    numbers = {label: place for place, label in enumerate(names)}
    if all(label.isdecimal() and int(label) < MOST_CLASSES for label in names):
        numbers = {label: int(label) for label in names}
    framed = [tokenizer.framed(half.texts, reading.tokens) for half in halves]
    longest = max(len(ids) for half in framed for ids in half)
    splits = []
    for half, rows in zip(halves, framed, strict=True):
        ids = torch.full((len(rows), longest), tokenizer.padding)
        there = torch.zeros(len(rows), longest, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            there[i, : len(row)] = 1
        labels = torch.tensor([numbers[label] for label in half.labels])
        splits.append(LabelledSplit(ids, there, labels))
    classes = max(numbers.values()) + 1
    return Dataset(
        name, splits[0], splits[1], classes, (longest,), tuple(names), tuple(notes), task
    )


def _order(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if label.isdecimal() else (1, 0, label)


def _halves(place: Path) -> tuple[_Half, _Half, bool]:
    """Return the documents of the train and the test half, and whether some were not read.

    Raises:
        DataError: There is no text.
    """
    said = {} if place.is_file() else {half: _half_of(place, half) for half in _HALVES}
    budget = _Budget()
    if all(said.values()) and said:
        halves = [_Half(), _Half()]
        for half, part in zip(halves, ("train", "test"), strict=True):
            for text, label in _documents(said[part] or place, budget):
                half.texts.append(text)
                half.labels += [] if label is None else [label]
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


def _divided(documents: list[tuple[str, str | None]], place: Path) -> tuple[_Half, _Half]:
    if len(documents) < TEST_SHARE:
        if any(label is not None for _, label in documents):
            raise DataError(f"{place} has {len(documents)} labelled texts: give {TEST_SHARE}")
        text = "\n".join(text for text, _ in documents)
        at = len(text) * (TEST_SHARE - 1) // TEST_SHARE
        at = text.rfind("\n", 0, at) + 1 or at
        return _Half([text[:at]]), _Half([text[at:]])
    order = list(range(len(documents)))
    if documents[0][1] is not None:  # tables are often sorted by class
        random.Random(0).shuffle(order)
    halves = _Half(), _Half()
    for number, index in enumerate(order):
        text, label = documents[index]
        half = halves[number % TEST_SHARE == TEST_SHARE - 1]
        half.texts.append(text)
        half.labels += [] if label is None else [label]
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
