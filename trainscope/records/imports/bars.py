"""Counts in a text log that no word explains: progress bars, and lines that count epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

FEWEST = 2
"""Lines that make a count of epochs, and epochs that make a habit of two bars."""
BARS = (
    "Each epoch has two progress bars, of {} and of {} batches, which do not name their data: the "
    "second one was taken to be of the test."
)
COUNTS = "The log does not name its epochs; the count at each of its tests was taken for them."


@dataclass
class Bars:
    """The bars of each epoch that do not name their data, by how many batches they count.

    Attributes:
        totals: Of the bars of each epoch, in their order.
    """

    totals: dict[int, list[float]] = field(default_factory=dict)
    _done: float = 0.0
    _epoch: int | None = None

    def begin(self) -> None:
        """Let the next bar be the first of its epoch, which a line names."""
        self._epoch = None

    def see(self, epoch: int, done: float, of: float) -> int:
        """Take a count, and return which bar of its epoch it is of, from 0."""
        own = self.totals.setdefault(epoch, [])
        if epoch != self._epoch:
            own.clear()  # a training that was begun again
        if not own or of != own[-1] or done < self._done:
            own.append(of)
        self._done, self._epoch = done, epoch
        return len(own) - 1

    @property
    def pair(self) -> tuple[float, float] | None:
        """Return the batches of training and of the test, None where the bars do not tell them.

        They do where each epoch, but for a last one that was cut short, has a long bar and then a
        short one, of the same lengths.
        """
        whole = list(self.totals.values())
        if whole and len(whole[-1]) < 2:
            whole.pop()
        kinds = {tuple(each) for each in whole}
        if len(kinds) != 1 or len(whole) < FEWEST:
            return None
        kind = kinds.pop()
        return (kind[0], kind[1]) if len(kind) == 2 and kind[0] > kind[1] else None


@dataclass
class Counts:
    """The counts of lines with a test value, in a log that names no epoch.

    Attributes:
        done: Of each of them; None where a line has a test value and no count.
        of: What they count to.
    """

    done: list[float | None] = field(default_factory=list)
    of: set[float] = field(default_factory=set)

    def see(self, done: float | None, of: float | None) -> None:
        """Take the count of a line with a test value."""
        self.done.append(done)
        if of is not None:
            self.of.add(of)

    @property
    def are_epochs(self) -> bool:
        """Tell counts of epochs: of so many, and each as far from the last one."""
        known = [each for each in self.done if each is not None]
        if len(known) < FEWEST or len(known) != len(self.done) or len(self.of) != 1:
            return False
        gaps = {after - before for before, after in pairwise(known)}
        gap = gaps.pop()
        return not gaps and gap > 0 and known[0] <= gap
