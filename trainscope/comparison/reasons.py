"""Reasons in words, and lists in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_VALUES = 3
"""So many values are written out in a sentence."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Why a fact is not known to be the same.

    Attributes:
        words: The reason, a clause.
        known: It is known to differ; False where it is only not known to be the same.
    """

    words: str
    known: bool


def listed(words: Sequence[str], most: int | None = None) -> str:
    """Return "a, b and c".

    Args:
        words: The words.
        most: Write so many out and count the others: "a, b, c and 4 more".
    """
    shown = list(words[:most])
    rest = len(words) - len(shown)
    if rest:
        return ", ".join(shown) + f" and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def numbers(values: Sequence[float], form: str) -> str:
    """Return "20, 30 and 90", or "20 to 180" where there are more than `MOST_VALUES`."""
    told = list(dict.fromkeys(form.format(value) for value in sorted(values)))
    return listed(told) if len(told) <= MOST_VALUES else f"{told[0]} to {told[-1]}"


def who(labels: Sequence[str], among: int) -> str:
    """Return names of settings; "every run" where they are all, a count where names read badly."""
    if len(labels) == among:
        return "every run"
    if len(labels) > MOST_VALUES and any("," in label or "·" in label for label in labels):
        return f"{len(labels)} of {among} settings"
    return listed(labels, MOST_VALUES)
