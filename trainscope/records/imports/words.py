"""A line of a text log as names with their numbers, and what the line itself says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from trainscope.records.imports.epoch_words import epoch_in
from trainscope.records.imports.log import MINUS
from trainscope.records.imports.names import (
    ACCURACY,
    LOSS,
    LR,
    SPLITS,
    STEP,
    TRAIN,
    meaning,
    split_of,
)

# The first character is read before anything else is asked, so that a search skips all others.
NUMBER = re.compile(
    r"[-+.\dnNiI](?:(?<=\d)(?<!\d\d)(?P<clock>\d*+(?::\d\d++)++(?:\.\d++)?)"  # 0:09:11: none
    r"|(?<![\w@.\-/].)"
    r"(?P<value>(?:(?<=\d)\d*+\.?\d*+|(?<=\.)\d++|(?<=[-+])(?:\d++\.?\d*+|\.\d++))"
    r"(?:[eE][-+]?\d++)?"
    r"|(?:(?<=[nN])[aA][nN]|(?<=[iI])[nN][fF]|(?<=[-+])(?:[nN][aA][nN]|[iI][nN][fF]))\b)"
    r"(?P<of>\s?/\s?\d++(?!\s?/))?(?P<unit>\s?%|[sS](?!\w))?(?!\w|[.,]\d|\s?/\s?\d))"
)
_FIRST = "".join(sorted({word[0] + word[0].upper() for word in SPLITS}))
_DATA = re.compile(rf"[{_FIRST}](?<![A-Za-z0-9_].)[A-Za-z]++(?![A-Za-z0-9_])")
_VALUED = re.compile(r"\s?[:=]\s?[-+]?\d*\.\d")
"""Behind a word that is itself the name of a number, and says nothing of the others: val=0.65"""
_ENDS = re.compile(r"[|;,\t(){}\[\]<>]|\s{2,}|\s[-–—]\s")
_SPACED = re.compile(r"\[\s*(\d+)\s*/\s+(\d+)\s*\]")
"""[   50/  176]"""
_BY = re.compile(r"\b(lr|learning rate)\s?\(\w+\)(?=\s*[:=])", re.IGNORECASE)
"""lr(PiecewiseDecay): 0.1"""
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_OF_DATA = re.compile(
    rf"(?<![A-Za-z0-9_])(?!epoch)([A-Za-z_][\w@]*)\s?\(({'|'.join(SPLITS)})\)(?=\s*[:=])",
    re.IGNORECASE,
)
"""acc(test)=70"""
_BACK = re.compile(r"\x08+")
"""Backspaces, over which a bar writes its count"""
_MARKUP = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BATCH = frozenset(("batch", "batches", "it", "its"))
_AT_STEP = re.compile(r"\b(at|for|after|on) (global )?(step|iter|iteration)$", re.IGNORECASE)
_PLACE = re.compile(
    r"[\s(\[]+(?:(?:at|for|after|on|in|@)\s*)?(?:(?:global )?(?:step|iter|iteration))?$",
    re.IGNORECASE,
)
_IS = (":", "=", ":=", "is", "->")
_PART_OF_A_NAME = frozenset(("the", "on", "of", "over", "all", "group", "for"))
ROUNDED = 1.0
"""Percentage points by which an accuracy is rounded."""
MOST_WORDS = 12
MOST_CHARACTERS = 2048


@dataclass(slots=True)
class Pair:
    """A name and its number.

    Attributes:
        name: The words before the number.
        value: The number; of `9834/10000`, an accuracy in percent.
        average: The number in brackets behind it, None where there is none.
        at: Where the name begins in the line.
    """

    name: str
    value: float
    at: int
    average: float | None = None


@dataclass(slots=True)
class Line:
    """What a line says.

    Attributes:
        text: The line.
        pairs: The names and numbers.
        epoch: The epoch that it names, None where it names none.
        batch: Whether it is of a batch: it counts them.
        complete: Whether that count is at its end.
        ended: Whether it is, or is at the last batch, counted from 0.
        split: The data that it names with its epoch.
        done: How many batches, or whatever it counts, are done; None where it counts none.
        of: Of how many.
        step: Of how many steps it is.
        words: Where it names data, once that was asked for.
        ema: Whether it names averaged weights anywhere, likewise.
    """

    text: str
    pairs: list[Pair]
    epoch: int | None = None
    batch: bool = False
    complete: bool = False
    ended: bool = False
    split: str = ""
    done: float | None = None
    of: float | None = None
    step: float | None = None
    words: list[tuple[int, str]] | None = field(default=None, repr=False)
    ema: bool | None = field(default=None, repr=False)

    def split_at(self, place: int) -> str:
        """Return the data that was last named to the left of a place, "" for none."""
        if self.words is None:
            found = [(match.start(), match[0]) for match in _DATA.finditer(self.text)]
            self.words = [
                (at, word)
                for at, word in found
                if word.lower() in SPLITS and not _VALUED.match(self.text, at + len(word))
            ]
        last = ""
        for at, word in self.words:
            if at < place:
                last = word
        return split_of(last) if last else self.split

    def averaged(self, place: int) -> bool:
        """Tell whether a place is said to be of averaged weights, before the first colon."""
        if self.ema is None:
            self.ema = "ema" in self.text.lower()
        if not self.ema:
            return False
        return "ema" in self.text[:place].lower().split(":")[0].replace("(", " ").split()


def ends_in(name: str, given: str) -> bool:
    """Tell whether a name is one that a person gave, with words before it or not."""
    return name == given or name.endswith((f" {given}", f"/{given}", f"_{given}"))


def read_line(text: str, wanted: frozenset[str] = frozenset()) -> Line:
    """Read a line.

    Args:
        text: The line.
        wanted: Names that mean something, beside those that are known.
    """
    if "\b" in text:
        text = _BACK.sub(" ", text)
    if "\x1b" in text:
        text = _MARKUP.sub("", text)
    text = _OF_DATA.sub(r"\2 \1", text[:MOST_CHARACTERS])
    if "," in text:
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    if "/ " in text and "[" in text:
        text = _SPACED.sub(r"[\1/\2]", text)
    if MINUS in text:
        text = text.replace(MINUS, "-")
    if "(" in text:
        text = _BY.sub(r"\1", text)
    line = Line(text, [], batch="%|" in text)
    epoch_from, epoch_to = -1, -1
    named = epoch_in(text)
    if named is not None:
        line.epoch, line.split, (epoch_from, epoch_to) = named
    end = 0
    last: Pair | None = None
    lone: float | None = None  # a number behind the word `train` alone
    placed = ""  # a name in whose place an epoch or step stands: val acc after epoch 3: 60.0
    for match in NUMBER.finditer(text):
        clock, rest, of, unit = match.groups()
        start = match.start()
        if clock is not None:
            end, last = match.end(), None
            continue
        written = text[start] + rest
        if epoch_from <= start < epoch_to:
            placed = _without_place(_label(text[end:epoch_from], wanted).name)
            end, last, lone = epoch_to, None, None
            continue
        between = text[end:start]
        label = _label(between, wanted)
        if placed and not label.name and between.strip(" \t)]") in _IS:
            label = label._replace(name=placed, length=len(between), useful=True)
        placed = ""
        if label.bracket and last is not None and not of:
            last.average, end, last = _value(written), match.end(), None
            continue
        if label.bracket and last is not None and of and _is_share(last, written, of):
            end = match.end()  # Acc: 44.100% (22050/50000)
            continue
        last = None
        if label.goes_on:  # Accuracy on the 10000 test images
            continue
        end = match.end()
        if of and label.counts:
            _count(line, _value(written), _whole(of))
            if label.step:
                line.step = _value(written)
            if lone is not None and line.epoch is None:  # Train: 0 [  50/196 ( 26%)]
                line.epoch = int(lone)
            lone = None
            continue
        plain = label.train and not of and unit is None and written.isdigit()
        lone = float(written) if plain else None
        if label.step and not of and line.step is None:
            line.step = _value(written)
        if label.at_step:  # validation loss at iteration 100
            line.step, placed = _value(written), _without_place(label.name)
            continue
        name = label.name if label.useful else _of_metric(label.name, line.pairs)
        if name:
            value = _value(written)
            if of:
                whole = _whole(of)
                value = 100 * value / whole if whole else math.nan
            last = Pair(name, value, start - label.length)
            line.pairs.append(last)
    return line


def _without_place(name: str) -> str:
    """Return a name without the words that lead to an epoch or step, "" where it means nothing."""
    name = _PLACE.sub("", name)
    found = meaning(name)
    return name if found is not None and found.field in (ACCURACY, LOSS, LR) else ""


def _of_metric(word: str, before: list[Pair]) -> str:
    """Return the name of a number behind a word of data alone: `loss train: 1.5, val: 1.2`."""
    if not before or not split_of(word):
        return ""
    found = meaning(before[-1].name)
    if found is None or not found.split or found.field not in (LOSS, ACCURACY):
        return ""
    return f"{word} {found.field}"


def _is_share(pair: Pair, part: str, of: str) -> bool:
    """Tell a share in brackets behind the accuracy that it makes."""
    found, whole = meaning(pair.name), _whole(of)
    if found is None or found.field != ACCURACY or not whole:
        return False
    percent = 100 * _value(part) / whole
    return min(abs(percent - pair.value), abs(percent - 100 * pair.value)) < ROUNDED


def _whole(of: str) -> float:
    return float(of.strip().strip("/").strip())


def _count(line: Line, done: float, of: float) -> None:
    line.batch, line.done, line.of = True, done, of
    line.complete, line.ended = done == of, of - done <= 1


class _Label(NamedTuple):
    """What stands between two numbers.

    Attributes:
        name: The words that belong to the number behind it.
        length: Characters from the first of them to the number.
        bracket: Whether it is a bracket alone.
        goes_on: Whether the number is a part of the name, which goes on behind it.
        counts: Whether it makes the number a count of batches, if that is of so many.
        train: Whether it says nothing but that training is meant.
        step: Whether it says a step.
        at_step: Whether it says a step behind the name of something else.
        useful: Whether the name means anything.
    """

    name: str
    length: int
    bracket: bool
    goes_on: bool
    counts: bool
    train: bool
    step: bool
    at_step: bool
    useful: bool


@lru_cache(maxsize=20_000)
def _label(between: str, wanted: frozenset[str]) -> _Label:
    words = _ENDS.split(between.rstrip(" \t:=([{\"'<"))[-1].split()[-MOST_WORDS:]
    name = " ".join(words).strip("*:=\"'# ")
    counts, train, useful = _use(name)
    found = meaning(name)
    return _Label(
        name=name,
        length=len(between) - between.rfind(words[0]) if words else 0,
        bracket=between.strip() == "(",
        goes_on=bool(words)
        and words[-1].lower() in _PART_OF_A_NAME
        and between[-1:].isspace()
        and "=" not in between[-2:],
        counts=counts,
        train=train,
        step=found is not None and found.field == STEP,
        at_step=len(words) > 1 and _AT_STEP.search(name) is not None,
        useful=useful or (bool(name) and any(ends_in(name, one) for one in wanted)),
    )


@lru_cache(maxsize=20_000)
def _use(name: str) -> tuple[bool, bool, bool]:
    """Return whether a name counts batches, is training's alone, and means anything."""
    found = meaning(name)
    counts = found is not None and found.field == STEP
    words = name.lower().split()
    if not counts and found is None:
        counts = all(word in SPLITS or word.strip(":") in _BATCH for word in words)
    return counts, split_of(name) == TRAIN, bool(words) and found is not None


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
