"""The numbers of a log gathered by epoch, and the choice of what is taken for what.

Every reader of text hands its numbers over one entry at a time. A name that goes back to an epoch
which it had already passed tells that the training was begun again: what was gathered from that
epoch on is dropped, so that an epoch never mixes two trainings.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from trainscope.errors import RecordError
from trainscope.records.imports.choice import choose, fits, is_called
from trainscope.records.imports.log import (
    Log,
    NoAccuracyError,
    listed,
    no_accuracy,
    test_loss,
)
from trainscope.records.imports.names import (
    ACCURACY,
    LOSS,
    LR,
    SECONDS,
    STEP,
    TRAIN,
    is_of_guesses,
    is_test_accuracy,
    meaning,
)

_RATE, _BARE, _TRAINED, _KNOWN = "rate", "accuracy of unnamed data", "training loss", "known"
_GUESSES = "accuracy of k guesses"  # which tells shares from percentages
MOST_EPOCHS = 1_000_000
MOST_NUMBERS = 2_000_000
"""Numbers that are held at a time."""
MOST_NAMES = 5_000
"""Names of numbers that a Run may hold."""
MOST_SEEN = 1_000
"""Names that are kept for messages."""
_PERCENT = re.compile(r"%|percent|(?<![a-z])pct(?![a-z])")


@dataclass(slots=True)
class Cell:
    """What one name had in one epoch: its last number, and the weighted mean of all.

    Where a line sums the epoch up, the numbers of batches before it are of no account.
    """

    last: float = 0.0
    sum: float = 0.0
    weight: float = 0.0
    count: int = 0
    whole: bool = False

    def add(self, value: float, weight: float, *, whole: bool = True) -> None:
        """Add a number, of the whole epoch or of a batch."""
        if self.whole and not whole:
            return
        if whole and not self.whole:
            self.sum, self.weight, self.count, self.whole = 0.0, 0.0, 0, True
        self.last = value
        self.sum += value * weight
        self.weight += weight
        self.count += 1

    @property
    def mean(self) -> float:
        """Return the mean, without a rounding error where all numbers are equal."""
        mean = self.sum / self.weight
        return self.last if abs(mean - self.last) <= 1e-12 * abs(self.last) else mean


@dataclass
class EpochCollector:
    """Numbers by epoch and name.

    Attributes:
        path: Of the log, for messages.
        asked: Names that the person gave, by field of a Run.
        rows: The cells, by epoch as the log counts them, and name.
        names: Every name that was seen.
        passed: The last epoch in which each name had a number.
        again: (last epoch before, first epoch after) of every time the training began again.
        means: Names whose numbers are running means already: the last one counts.
        beside: How often each accuracy of unnamed data stood beside a training loss.
        uses: What each name is good for.
        held: Cells that are held.
        signed: Names behind whose numbers a % stood.
        lost: The epochs in which each name stood as NaN or infinity.
        tests_first: The epochs that begin with a test.
    """

    path: str
    asked: Mapping[str, str]
    rows: dict[int, dict[str, Cell]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    again: list[tuple[int, int]] = field(default_factory=list)
    means: set[str] = field(default_factory=set)
    beside: dict[str, int] = field(default_factory=dict)
    uses: dict[str, str | None] = field(default_factory=dict)
    held: int = 0
    signed: set[str] = field(default_factory=set)
    lost: dict[str, set[int]] = field(default_factory=dict)
    tests_first: set[int] = field(default_factory=set)

    def lose(self, epoch: int, names: Iterable[str]) -> None:
        """Remember names whose values are NaN or infinite in an epoch."""
        for name in names:
            if self._use(name) is not None:
                self.lost.setdefault(name, set()).add(epoch)

    def see(self, names: Iterable[str]) -> None:
        """Remember names for messages."""
        if len(self.names) < MOST_SEEN:
            self.names |= dict.fromkeys(names)

    def wanted(self, name: str) -> bool:
        """Tell whether a name may be of use."""
        return self._use(name) is not None

    def add(
        self,
        epoch: int,
        values: Mapping[str, float],
        weight: float = 1.0,
        parts: Container[str] = (),
    ) -> None:
        """Add one entry of the log.

        Args:
            epoch: As the log counts it.
            values: Its numbers, by name.
            weight: In the means of the epoch, above 0.
            parts: Names whose numbers are of a batch alone.

        Raises:
            RecordError: There are too many epochs or numbers for a log of a training.
        """
        own, uses, back, rates_back = [], set(), False, False
        passed = self.passed
        for name, value in values.items():
            use = self._use(name)
            if use is None:
                continue
            own.append((name, value, use))
            uses.add(use)
            if passed.get(name, -1) > epoch:
                if use == _RATE:
                    rates_back = True
                else:
                    back = True
        # A test at the end is of an epoch that has passed, but of a name of its own.
        if back or (rates_back and uses == {_RATE}):
            self.begin_again(epoch)
            passed = self.passed
        if _BARE in uses and _TRAINED in uses:
            for name, _, use in own:
                if use == _BARE:
                    self.beside[name] = self.beside.get(name, 0) + 1
        begins = epoch not in self.rows and _TRAINED not in uses
        if begins and any(is_test_accuracy(name, self.asked) for name, _, _ in own):
            self.tests_first.add(epoch)
        row = self.rows.setdefault(epoch, {})
        for name, value, _ in own:
            passed[name] = epoch
            cell = row.get(name)
            if cell is None:
                cell = row[name] = Cell()
                self.held += 1
            cell.add(value, weight, whole=name not in parts)
        if len(self.rows) > MOST_EPOCHS or self.held > MOST_NUMBERS or len(passed) > MOST_NAMES:
            raise RecordError(
                f"{self.path} has more epochs or names than a log of one training: keep the lines "
                "and columns of the epochs"
            )

    def _use(self, name: str) -> str | None:
        """Return what a name is good for, None for nothing."""
        try:
            return self.uses[name]
        except KeyError:
            pass
        found = meaning(name)
        use = None
        if found is not None and found.field in (LR, LOSS, ACCURACY, SECONDS):
            bare = found.field == ACCURACY and not found.split
            trained = fits("train_loss", found)
            use = _BARE if bare else _TRAINED if trained else _RATE if found.field == LR else _KNOWN
        elif any(is_called(name, own) for own in self.asked.values()):
            use = _KNOWN
        elif is_of_guesses(name):
            use = _GUESSES
        if len(self.uses) < 20 * MOST_NAMES:
            self.uses[name] = use
        return use

    def begin_again(self, epoch: int) -> None:
        """Drop what is there from an epoch on, with which a training was begun again.

        Raises:
            RecordError: It is so again and again.
        """
        last = max(self.rows, default=epoch)
        self.again.append((last, epoch))
        for number in [number for number in self.rows if number >= epoch]:
            self.held -= len(self.rows.pop(number))
        self.passed = {name: min(at, epoch) for name, at in self.passed.items()}
        if len(self.again) > max(3, len(self.rows) + 1):
            raise RecordError(
                f"{self.path}: its epochs go back again and again (first from {self.again[0][0]} "
                f"to {self.again[0][1]}), so it holds several trainings or is not in their order: "
                "sort it by epoch, or keep one training"
            )

    def log(self, source: str) -> Log:
        """Choose the name of each field, and return the log.

        Raises:
            RecordError: There is no test accuracy, or a name that the person gave is not there.
        """
        counts: dict[str, int] = {}
        for row in self.rows.values():
            for name in row:
                counts[name] = counts.get(name, 0) + 1
        # Names in the order in which the log has them.
        counts = {name: counts[name] for name in (*self.names, *counts) if name in counts}
        batches = {
            name
            for name, times in self.beside.items()
            if 2 * times > sum(row[name].count for row in self.rows.values() if name in row)
            and any(name in row and row[name].count > 1 for row in self.rows.values())
        }
        own = {name: count for name, count in counts.items() if name not in batches}
        own |= {name: counts[name] for name in self.asked.values() if name in counts}
        taken = choose(own, self.asked, self.path, self.names)
        if batches and "test_accuracy" not in taken:
            error = NoAccuracyError(
                f"{self.path} has no test accuracy: '{min(batches)}' has several values an epoch "
                "beside the training loss, so it is of training batches; log the accuracy of the "
                "test data, or say with --column test_accuracy=NAME which name it has"
            )
            error.loss, error.names = test_loss(counts, counts), tuple(counts)
            raise error
        if "test_accuracy" not in taken:
            raise no_accuracy(self.path, self.names, counts)
        seconds = taken.get("seconds")
        if seconds is not None and any(
            seconds in row and row[seconds].count > 1 for row in self.rows.values()
        ):
            del taken["seconds"]  # of steps
        found = Log(source, [], taken)
        for epoch in sorted(self.rows):
            cells = self.rows[epoch]
            values = {"epoch": float(epoch)}
            for part, name in taken.items():
                if name in cells:
                    average = part in ("train_loss", "lr") and name not in self.means
                    values[part] = cells[name].mean if average else cells[name].last
            if len(values) > 1:
                found.rows.append(values)
        found.tests_first = len(found.rows) > 1 and self.tests_first >= self.rows.keys()
        name = taken["test_accuracy"]
        found.in_percent = name in self.signed or _PERCENT.search(name.lower()) is not None
        found.above_one = next((other for other in counts if self._above_one(other, name)), "")
        self._note(found)
        found.diverged_at = self._diverged_at(taken)
        return found

    def _diverged_at(self, taken: Mapping[str, str]) -> int | None:
        """Return the epoch from which on a loss or the test is no number, None where it is one.

        A name that is NaN beside its numbers stands in a table with a row for each kind of value.
        """
        for part in ("train_loss", "test_loss", "test_accuracy"):
            name = taken.get(part, "")
            lost = self.lost.get(name, set())
            known = {epoch for epoch, row in self.rows.items() if name in row}
            if not lost or not known or len(known & lost) > 1:
                continue
            behind = {epoch for epoch in lost if epoch > max(known)}
            if behind and max(behind) >= max(self.rows):
                return min(behind)
        return None

    def _above_one(self, name: str, taken: str) -> bool:
        """Tell whether a name is of another accuracy, and goes above 1."""
        found = meaning(name)
        accuracy = is_of_guesses(name) if found is None else found.field == ACCURACY
        return (
            name != taken
            and accuracy
            and any(name in row and row[name].last > 1 for row in self.rows.values())
        )

    def _note(self, found: Log) -> None:
        if self.again:
            last, first = self.again[-1]
            found.notes.append(
                f"The training was begun again: after epoch {last} the log goes back to epoch "
                f"{first} (as it counts them). The epochs from {first} on are those of the later "
                "training"
                + (
                    ", and the ones before it are of the earlier one."
                    if any(number < first for number in self.rows)
                    else "; the earlier one is left out."
                )
            )
        self._note_rates(found)
        name = found.taken["test_accuracy"]
        if "test_accuracy" not in self.asked and _is_bare_accuracy(name):
            meant = [meaning(other) for other in self.passed]
            if not any(m and m.field == ACCURACY and m.split == TRAIN for m in meant):
                found.notes.append(
                    f"The name '{name}' does not say of which data it is; it was taken to be of "
                    "the test data."
                )
        several = sum(name in row and row[name].count > 1 for row in self.rows.values())
        if several and name not in self.means:
            steps = next((n for n in self.names if (m := meaning(n)) and m.field == STEP), None)
            found.notes.append(
                f"{several} epochs have several values of '{name}': the last one of each was taken"
                + ("." if steps is None else f"; --column epoch={steps} keeps all, told by steps.")
            )
        loss = found.taken.get("train_loss", "")
        if loss not in self.means and any(
            loss in row and row[loss].count > 1 for row in self.rows.values()
        ):
            found.notes.append(
                f"The training loss of an epoch is the mean of its values of '{loss}'."
            )

    def _note_rates(self, found: Log) -> None:
        """Say which LR was taken where the log has several that differ."""
        taken = found.taken.get("lr", "")
        if not taken or "lr" in self.asked:
            return
        others = [
            name
            for name in self.passed
            if name != taken
            and self.uses.get(name) == _RATE
            and any(
                name in row and taken in row and row[name].last != row[taken].last
                for row in self.rows.values()
            )
        ]
        if others:
            found.notes.append(
                f"The log has several LRs, and '{taken}' was taken: for {listed(others, 3)} say "
                "--column lr=NAME."
            )


def _is_bare_accuracy(name: str) -> bool:
    found = meaning(name)
    return found is not None and found.field == ACCURACY and not found.split
