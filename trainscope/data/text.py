"""Text as data: `text:FILE`. Token sequences to be continued, or texts with a label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainscope.data.dataset import Dataset
from trainscope.data.documents import MOST_BYTES, Half, halves_of
from trainscope.data.split import Augment
from trainscope.data.tokens import Tokenizer, tokenizer_for
from trainscope.errors import DataError
from trainscope.task import Batch, Classification, LanguageModelling, MaskedLanguageModelling, Task
from trainscope.task.classification import IGNORED

LENGTH = 128
"""Tokens of a sequence by default, where the network takes as many."""
TEST_TOKENS = 2**14
"""A test is on at most so many tokens, evenly spaced over the test half."""
MASKED_SHARE = 0.15
MOST_CLASSES = 1000
"""Labels that are whole numbers below it are taken as the network's outputs."""


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
    train, test, cut = halves_of(place)
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
    halves: tuple[Half, Half],
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
    halves: tuple[Half, Half],
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
