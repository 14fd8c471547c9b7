"""A study's results as columns: which are numbers, and which rows are one candidate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from trainscope.errors import RecordError
from trainscope.records.metric import HIGHER, LOWER
from trainscope.studies.association import Floats, Ints

Row = Mapping[str, Any]
NOT_BEFORE = re.compile(
    r"(^|[^a-z])(final|best|last|end|retrained|seed|seconds)([^a-z]|$)"
    r"|^(train|test)_loss$|^epoch[0-9.]+[._]"
)
"""Names of numbers that no one knows before retraining, or that mean nothing."""
_LOW = re.compile(r"loss|perplexity|ppl|error|rmse|mae|mse", re.IGNORECASE)
_HIGH = re.compile(r"acc|(^|[_. ])ta([_. @]|$)|iou|psnr|(^|[_. ])f1|dice|map\d*$", re.IGNORECASE)


@dataclass(frozen=True)
class Candidates:
    """What was known of each candidate, and what its retrainings ended at.

    Attributes:
        names: [N], of the candidates.
        ends: What the retrainings of each ended at, finite, one or more of each.
        strata: [N], which of the strata each is of.
        strata_names: By number.
        known: [N] by column, NaN where it is missing: the mean over a candidate's retrainings.
        rows: How many rows there were.
        without_end: Rows whose retraining ended at no number.
    """

    names: tuple[str, ...]
    ends: tuple[Floats, ...]
    strata: Ints
    strata_names: tuple[str, ...]
    known: Mapping[str, Floats]
    rows: int
    without_end: int

    @property
    def target(self) -> Floats:
        """Return the mean of each candidate's ends, [N]."""
        return np.array([end.mean() for end in self.ends])

    def of(self, places: Ints) -> Candidates:
        """Return some of the candidates."""
        return Candidates(
            tuple(self.names[k] for k in places),
            tuple(self.ends[k] for k in places),
            self.strata[places],
            self.strata_names,
            {name: values[places] for name, values in self.known.items()},
            self.rows,
            self.without_end,
        )


def candidates(
    rows: Sequence[Row],
    target: str,
    known: Sequence[str] | None = None,
    *,
    group: Sequence[str] = (),
    within: Sequence[str] = (),
) -> Candidates:
    """Read candidates from rows, one a retraining.

    Args:
        rows: By column. None, "", NaN and infinity are no numbers.
        target: The column of what retraining ended at.
        known: Columns, or patterns with `*` and `?`; by default all that hold different numbers,
            but for the target, the group, the strata, and those whose names say that they are
            seeds, times or of the end.
        group: Columns whose values together name a candidate: rows that share them are its
            retrainings. By default each row is a candidate.
        within: Columns whose values together name a stratum.

    Raises:
        RecordError: There is no row, no such column, text where a number is needed, or a candidate
            in two strata.
    """
    if not rows:
        raise RecordError("there are no results to correlate: the study has no finished run")
    there = list(dict.fromkeys(name for row in rows for name in row))
    for name in (target, *group, *within):
        if name not in there:
            which = "; say which is the end with --target (target=)" if name == target else ""
            raise RecordError(f"{_missing(name, there)}{which}")
    chosen = _chosen(rows, there, known, {target, *group, *within})
    ends = _numbers(rows, target)
    held: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        key = tuple(str(row.get(name)) for name in group) if group else (str(place),)
        held.setdefault(key, []).append(place)
    strata = ["; ".join(str(row.get(name)) for name in within) for row in rows]
    for key, places in held.items():
        others = {strata[place] for place in places}
        if len(others) > 1:
            raise RecordError(
                f"the candidate {' '.join(key)} is in the strata {', '.join(sorted(others))}: a "
                "candidate is of one, so name more columns with --group"
            )
    finished = {key: [p for p in places if math.isfinite(ends[p])] for key, places in held.items()}
    finished = {key: places for key, places in finished.items() if places}
    if not finished:
        raise RecordError(f"the column '{target}' holds no number, so there is nothing to predict")
    names = sorted({strata[places[0]] for places in finished.values()})
    columns = {name: _numbers(rows, name) for name in chosen}
    return Candidates(
        tuple(" ".join(key) for key in finished),
        tuple(ends[places] for places in finished.values()),
        np.array([names.index(strata[places[0]]) for places in finished.values()], np.int64),
        tuple(names),
        {
            name: np.array([_mean(values[places]) for places in finished.values()])
            for name, values in columns.items()
        },
        len(rows),
        int(np.sum(~np.isfinite(ends))),
    )


def direction(column: str) -> str | None:
    """Return which direction of a column is better by its name; None where it does not say."""
    if _LOW.search(column):
        return LOWER
    return HIGHER if _HIGH.search(column) else None


def _chosen(
    rows: Sequence[Row], there: Sequence[str], known: Sequence[str] | None, used: set[str]
) -> list[str]:
    if known is None:
        free = (name for name in there if name not in used and not NOT_BEFORE.search(name.lower()))
        found = [name for name in free if _holds_numbers(rows, name) and _varies(rows, name)]
        if not found:
            raise RecordError(
                "no column holds different numbers that were known before retraining: name some "
                "with --known"
            )
        return found
    found = []
    for pattern in known:
        fitting = [name for name in there if fnmatchcase(name, pattern) and name not in used]
        if not fitting:
            raise RecordError(
                f"'{pattern}' is the target itself, or names the candidates: it was not known "
                "before retraining"
                if pattern in used
                else _missing(pattern, there)
            )
        plain = not set("*?[") & set(pattern)
        found += [name for name in fitting if plain or _holds_numbers(rows, name)]
    return list(dict.fromkeys(found))


def _missing(name: str, there: Sequence[str]) -> str:
    shown = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
    return f"no column is named '{name}'; there are {shown}"


def _holds_numbers(rows: Sequence[Row], name: str) -> bool:
    values = [_number(row.get(name)) for row in rows]
    return None not in values and any(
        value is not None and math.isfinite(value) for value in values
    )


def _varies(rows: Sequence[Row], name: str) -> bool:
    return len({value for row in rows if math.isfinite(value := _number(row.get(name)) or 0.0)}) > 1


def _numbers(rows: Sequence[Row], name: str) -> Floats:
    found = np.empty(len(rows))
    for place, row in enumerate(rows):
        value = _number(row.get(name))
        if value is None:
            raise RecordError(
                f"the column '{name}' holds {str(row[name])[:40]!r} in row {place + 1}, which is "
                "no number"
            )
        found[place] = value
    return found


def _number(value: Any) -> float | None:
    """Return a cell's number, NaN for none or infinity, None for text."""
    if value is None or value == "":
        return math.nan
    try:
        found = (
            float(str(value).strip().removesuffix("%")) if isinstance(value, str) else float(value)
        )
    except (TypeError, ValueError):
        return None if str(value).strip() else math.nan
    return found if math.isfinite(found) else math.nan


def _mean(values: Floats) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else math.nan
