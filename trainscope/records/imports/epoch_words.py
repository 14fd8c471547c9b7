"""The epoch that a line of a text log names, in the words of any tool."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from trainscope.records.imports.names import SPLITS, split_of

_EPOCH = re.compile(
    r"(?<![/\w])ep(?:och)?(?:\b|(?=_\d++(?!\.?\w)))['\"]?\s*+(?:\((?P<split>\w++)\))?\s*+[:=#._-]?\s*+['\"\[]?\s*+(?P<number>\d++)"
    r"(?P<fraction>\.\d++)?(?!\w|[.,]\d)(?P<of>\s?/\s?\d++)?",
    re.IGNORECASE,
)
_OF_BOTH = re.compile(r"\[\s*(\d{1,9})\s*/\s*\d+\s*\]\s*\[\s*\d+\s*/\s*\d+\s*\]")
"""[3/300][50/1251]: the epoch, then the batch."""
_SHORT = re.compile(r"\W{0,3}[eE](\d{1,6})(?=\s?[:|\]])")
"""E12: """
_OF_RUN = re.compile(
    rf"^\W*(?:(?P<count>\d{{1,9}})/\d+\s\*\sEpoch\s\((?P<data>\w+)\)"
    rf"|(?P<split>{'|'.join(SPLITS)})\s\((?P<number>\d{{1,9}})/\d+\)\s)",
    re.IGNORECASE,
)
"""Catalyst's: `3/90 * Epoch (train): ` and `train (3/90) `."""
_NOT_AN_EPOCH = re.compile(
    r"\b(best|total|max|num|warmup|every|per|last|start|final)\b[^|]*$", re.IGNORECASE
)

_TIME = re.compile(r"\b(time|took|takes|taken|elapsed|duration|seconds)\b", re.IGNORECASE)
_UNIT = re.compile(r"\s*(?:s|secs?|seconds?|ms|m|mins?|minutes?|h|hrs?|hours?)\b", re.IGNORECASE)
"""Time taken for epoch: 10.00 seconds"""


class EpochWord(NamedTuple):
    """An epoch that a line names.

    Attributes:
        epoch: As the log counts it; of Hugging Face's epochs done, the one that they end.
        split: The data that is named with it, "" for none.
        span: Where it stands in the line.
    """

    epoch: int
    split: str
    span: tuple[int, int]


def epoch_in(text: str) -> EpochWord | None:
    """Return the epoch that a line names first, None where it names none."""
    counted = _counted(text) if "/" in text else None
    if counted is not None:
        return counted
    short = _SHORT.match(text)
    if short is not None:
        return EpochWord(int(short[1]), "", short.span())
    if "ep" not in text and "Ep" not in text and "EP" not in text:
        return None
    for match in _EPOCH.finditer(text):
        if _NOT_AN_EPOCH.search(text, 0, match.start()) or len(match["number"]) > 9:
            continue
        timed = _TIME.search(text, 0, match.start()) is not None
        if timed and (match["fraction"] or _UNIT.match(text, match.end())):
            continue
        epoch = int(match["number"])
        if match["fraction"]:  # Hugging Face's: epochs done
            epoch = max(1, math.ceil(epoch + float(match["fraction"]) - 1e-6))
        return EpochWord(epoch, split_of(match["split"] or ""), match.span())
    return None


def _counted(text: str) -> EpochWord | None:
    """Return the epoch of a line that counts epochs of all, where no word says that they are."""
    both = _OF_BOTH.search(text)
    if both is not None and not text[: both.start()].lower().rstrip(" :=").endswith("epoch"):
        return EpochWord(int(both[1]), "", both.span(1))
    found = _OF_RUN.match(text)
    if found is None:
        return None
    split = split_of(found["data"] or found["split"])
    return EpochWord(int(found["count"] or found["number"]), split, found.span())
