"""A first look at all rows of a table: what tells several runs apart, and in what order they are.

A table of several runs often names them in columns of anybody's own: method, dataset and seed. Such
columns, together, give each epoch one row, and each of their values begins with the same epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from trainscope.records.imports.names import split_of, words_of

MOST_VALUES = 1_000
"""Values of a column that tells runs apart."""
FEWEST_EPOCHS = 2
"""Epochs that every run has."""

_COUNT = re.compile(r"[-\d.,:/\s]+(?:e[-+]?\d+)?", re.IGNORECASE)
"""A number, or one of so many, or a time."""
_RUNS = frozenset(
    ("run", "seed", "fold", "repeat", "rep", "replicate", "trial", "experiment", "exp", "rank")
)
"""Words of columns whose numbers name runs, also in rows that go epoch by epoch."""


@dataclass
class Survey:
    """What all rows of a table say together.

    Attributes:
        epoch: The column of the epochs, None where there is none.
        tested: Columns that hold a test value.
        strange: Columns whose names mean nothing, with their names.
        epochs: The epoch of each row, None where it has none.
        values: The values of each strange column, as far as they may tell runs apart.
        rows: Of the rows with a test value: the epoch, and the cells of the strange columns.
    """

    epoch: int | None
    tested: Sequence[int]
    strange: Mapping[int, str]
    epochs: list[float | None] = field(default_factory=list)
    values: dict[int, dict[str, int]] = field(default_factory=dict)
    rows: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    def look(self, rows: Iterable[tuple[float | None, Sequence[str]]]) -> None:
        """Go through the rows, each with its epoch."""
        self.values = {at: {} for at in self.strange}
        places = list(self.strange)
        for epoch, row in rows:
            self.epochs.append(epoch)
            cells = tuple(_cell(row, at) for at in places)
            for at, cell in zip(places, cells, strict=True):
                known = self.values.get(at)
                if known is not None:
                    known[cell] = known.get(cell, 0) + 1
                    if len(known) > MOST_VALUES or not cell:
                        del self.values[at]
            if epoch is not None and any(_cell(row, at) for at in self.tested):
                self.rows.append((epoch, cells))

    @property
    def ascending(self) -> bool:
        """Return whether the epochs never go back."""
        known = [epoch for epoch in self.epochs if epoch is not None]
        return all(before <= after for before, after in pairwise(known))

    @property
    def each_once(self) -> bool:
        """Return whether every row has an epoch, and no epoch has two rows."""
        return None not in self.epochs and len(set(self.epochs)) == len(self.epochs)

    def phase(self, named: int | None) -> int | None:
        """Return the column of nothing but names of data.

        Args:
            named: A column whose name says so; of others there are rows of more than one data.
        """
        for at, values in self.values.items():
            splits = {split_of(value) for value in values}
            if "" not in splits and (at == named or len(splits) > 1):
                return at
        return None

    def apart(self, phase: int | None) -> list[int]:
        """Return the columns that tell the runs apart, together; [] where one run is enough.

        Args:
            phase: The column that says of which data a row is: it tells no runs apart.
        """
        epochs = [epoch for epoch, _ in self.rows]
        if phase is not None or len(set(epochs)) == len(epochs):
            return []
        places = list(self.strange)
        able = [at for at, values in self.values.items() if self._may_tell(at, values, len(epochs))]
        for columns in (*([at] for at in able), able):
            if columns and self._tells(columns, places):
                return columns
        return []

    def _may_tell(self, at: int, values: Mapping[str, int], rows: int) -> bool:
        """Tell a column of few values, which counts nothing within an epoch, as batches are."""
        if not 1 < len(values) <= rows / FEWEST_EPOCHS:
            return False
        named = not _RUNS.isdisjoint(words_of(self.strange[at]))
        return (
            named or not self.ascending or any(_COUNT.fullmatch(value) is None for value in values)
        )

    def _tells(self, columns: Sequence[int], places: Sequence[int]) -> bool:
        """Tell whether columns give each epoch of a run one row, and all runs the same start."""
        wanted = [places.index(at) for at in columns]
        runs: dict[tuple[str, ...], list[float]] = {}
        for epoch, cells in self.rows:
            runs.setdefault(tuple(cells[at] for at in wanted), []).append(epoch)
        return (
            len(runs) > 1
            and all(len(own) >= FEWEST_EPOCHS for own in runs.values())
            and all(len(set(own)) == len(own) for own in runs.values())
            and len({min(own) for own in runs.values()}) == 1
        )


def _cell(row: Sequence[str], at: int) -> str:
    return row[at].strip() if at < len(row) else ""
