"""Numbers in text with a comma in the place of the decimal point, as many languages write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

HALVES = "The log's numbers have commas in the place of decimal points."
MOST_LINES = 5_000
"""Lines that are looked at."""
FEWEST = 2
RARE = 0.1
"""Of numbers with a point, like versions, among those with a comma."""
_COMMA = re.compile(r"(?<![\w.,:/])(\d+),(\d+)(?![\w]|[,.:/]\d)")
_EXPONENT = re.compile(r"(?<![\w.,:/])(\d+),(\d+[eE][-+]?\d+)(?!\w|[,.:/]\d)")
_POINT = re.compile(r"(?<![\w.,:/-])\d+\.\d+(?![\w]|[,.:/-]\d)")


def are_halves(texts: Iterable[str]) -> bool:
    """Tell whether 0,5 is a half in a text: numbers with a decimal point are none, or rare.

    Commas that may all stand between thousands make no halves.
    """
    commas = points = sure = 0
    for text in islice(texts, MOST_LINES):
        if "," in text:
            for whole, part in _COMMA.findall(text):
                commas += 1
                sure += len(part) != 3 or whole.startswith("0") or len(whole) > 3
        if "." in text:
            points += len(_POINT.findall(text))
    return sure >= FEWEST and points <= RARE * commas


def points(text: str) -> str:
    """Return a line with decimal points in the place of such commas."""
    return _COMMA.sub(r"\1.\2", _EXPONENT.sub(r"\1.\2", text)) if "," in text else text
