"""Lists of a name each, as people keep them, made even: a row an epoch.

A list that is one longer than the others does not say which of its values is of which epoch, and
one of every batch is many times as long: the first is refused, the second is shared out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.log import choose_run, number
from trainscope.records.imports.names import (
    ACCURACY,
    EPOCH,
    LOSS,
    LR,
    SECONDS,
    STEP,
    TRAIN,
    Meaning,
    meaning,
)

BATCHES = 20
"""Values for each of another list, from which on they are of batches, whatever else is there."""
ROWS = "The lists do not say their epochs; each of their rows counts as one, tested or not."
FEWEST = 2
"""Values that make a list of epochs beside one of a single value, as of the end."""


@dataclass
class Lists:
    """Makes records of lists.

    Attributes:
        path: Of the log, for messages.
        asked: Names that the person gave, by field.
        notes: What a reader should know, each one sentence.
        run: The run to read, of a document of several.
        picked: Whether there were several.
    """

    path: str
    asked: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    run: str | None = None
    picked: bool = False

    def useful(self, name: str) -> bool:
        """Tell whether a list may be of what a Run holds, or of its epochs."""
        return meaning(name) is not None or name in self.asked.values()

    def pick(self, names: list[str]) -> str:
        """Return the name of the run to read, of those that a document holds.

        Raises:
            RecordError: None was named, or it is not there.
        """
        self.picked = True
        return choose_run(self.path, names, self.run)

    def records(self, lists: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Return a record a row.

        Raises:
            RecordError: Lists that a Run needs have lengths that do not go together.
        """
        needed = {name: cells for name, cells in lists.items() if self.useful(name) and cells}
        count = self._count(needed)
        even: dict[str, Sequence[Any]] = {}
        for name, cells in lists.items():
            if name not in needed or len(cells) == count:
                even[name] = cells
                continue
            shared = self._shared(name, cells, count, needed)
            if shared is not None:
                even[name] = shared
        rows = count or max(map(len, lists.values()), default=0)
        records: list[dict[str, Any]] = [
            {name: cells[k] for name, cells in even.items() if k < len(cells)} for k in range(rows)
        ]
        if not any(map(self._is_axis, needed)) and self._are_epochs(needed, rows):
            self.notes.append(ROWS)
            return [{"epoch": k, **record} for k, record in enumerate(records, start=1)]
        return records

    def _are_epochs(self, needed: Mapping[str, Sequence[Any]], rows: int) -> bool:
        """Tell lists in which an epoch without a test has none, from those of batches."""
        tested = [
            sum(number(cell) is not None for cell in cells)
            for name, cells in needed.items()
            if self.is_test(name)
        ]
        return bool(tested) and 0 < max(tested) < rows <= BATCHES * max(tested)

    def _count(self, needed: Mapping[str, Sequence[Any]]) -> int:
        """Return how many epochs there are: as many as the epochs said, else as the tests.

        Raises:
            RecordError: Tests differ in their lengths, or have none of the epochs that are said.
        """
        said = {name: len(cells) for name, cells in needed.items() if self._is_axis(name)}
        tests = {name: len(cells) for name, cells in needed.items() if self.is_test(name)}
        most = max(tests.values(), default=0)
        ended = [name for name, many in tests.items() if many == 1 and most >= FEWEST]
        for name in ended:
            self.notes.append(f"'{name}' has one value alone, and was left out.")
            del tests[name]
        for name, many in tests.items():
            first, count = next(iter((said or tests).items()))
            if many != count:
                raise self._uneven(name, many, first, count)
        return next(iter((said or tests or {"": 0}).values()))

    def _shared(
        self, name: str, cells: Sequence[Any], count: int, needed: Mapping[str, Sequence[Any]]
    ) -> list[Any] | None:
        """Return a list of batches shared out among the epochs; None to leave it out.

        Raises:
            RecordError: It is of epochs, and has more or fewer values than there are.
        """
        if not count or self.is_test(name):
            return None if count else list(cells)
        found = meaning(name)
        each, over = divmod(len(cells), count)
        # Another list of training says that an epoch is one value of the tests.
        trained = any(
            len(others) == count and not self.is_test(other) for other, others in needed.items()
        )
        if each > 1 and not over and (trained or each >= BATCHES) and not self._is_axis(name):
            self.notes.append(
                f"'{name}' has {len(cells)} values for {count} epochs: the mean of each {each} was "
                "taken to be an epoch's."
            )
            return [_mean(cells[k * each : (k + 1) * each]) for k in range(count)]
        if each > 1 and found is not None and found.field in (LOSS, ACCURACY) and trained:
            self.notes.append(
                f"'{name}' has {len(cells)} values for {count} epochs, which cannot be shared out, "
                "and was left out."
            )
            return None
        test = next((other for other in needed if self.is_test(other)), "")
        test = next((other for other in needed if self._is_axis(other)), test)
        raise self._uneven(name, len(cells), test, count)

    def _uneven(self, name: str, many: int, other: str, count: int) -> RecordError:
        why = "take out what is of no epoch, like a test before training, so that both are as long"
        if (many > count and many % count == 0) or (count > many and count % many == 0):
            why = "add a list 'epoch' that says the epoch of each test, as long as the tests"
        return RecordError(
            f"{self.path} has {many} values of '{name}' and {count} of '{other}', which does not "
            f"say which are of the same epoch: {why}"
        )

    def _is_axis(self, name: str) -> bool:
        if "epoch" in self.asked:
            return name == self.asked["epoch"]
        found = meaning(name)
        return found is not None and found.field in (EPOCH, STEP)

    def is_test(self, name: str) -> bool:
        """Tell whether a list may be of a test."""
        if name in self.asked.values():
            return name == self.asked.get("test_accuracy") or name == self.asked.get("test_loss")
        found = meaning(name)
        return found is not None and _tests(found)


def _tests(found: Meaning) -> bool:
    if found.field in (LR, SECONDS, EPOCH, STEP) or found.split == TRAIN:
        return False
    return found.field == ACCURACY or bool(found.split)


def _mean(cells: Sequence[Any]) -> float | None:
    values = [number(cell[0] if isinstance(cell, list) and cell else cell) for cell in cells]
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return known[-1] if abs(mean - known[-1]) <= 1e-12 * abs(known[-1]) else mean
