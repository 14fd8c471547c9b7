"""A budget of time: in words, what is left of it, and what measurements are expected to take."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainscope.errors import ProbeError
from trainscope.probes.processes.ranks import present

SPEED = 1e10
"""Multiply-adds a second that are expected before anything was timed: a slow laptop's."""
SLACK = 1.5
"""What a probe is expected to take of a plain pass's time, before it was timed itself."""
DEFAULT = 120.0
"""Seconds for all probes of all columns."""
_FORM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(s|m|min|h)?")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(text: str | float | None) -> float | None:
    """Return a budget in seconds, None for as long as it takes.

    Args:
        text: Like "90s", "2m", "1h", a number of seconds, or "none".

    Raises:
        ProbeError: It is none of these.
    """
    if text is None or str(text).strip().lower() == "none":
        return None
    found = _FORM.fullmatch(str(text).strip().lower()) if isinstance(text, str) else None
    seconds = 0.0 if isinstance(text, str) else float(text)
    if found is not None:
        seconds = float(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds < 1e9:
        raise ProbeError(f"'{text}' is no budget: give one like 90s, 2m, 1h, or none")
    return seconds


def budget_text(seconds: float) -> str:
    """Write a budget as `parse_budget` reads it."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:.3g}s"


@dataclass
class Clock:
    """What is left of a budget, and what a measurement of all columns is expected to take.

    All processes of a job go by the first one's.

    Attributes:
        budget: Seconds.
        flops: Multiply-adds of one sample in the first column.
        columns: How many there are.
        begun: When, as `time.perf_counter` counts.
        timed: Seconds of a sample pass in the first column, where passes were timed.
        rates: Seconds of a sample pass in all columns, by the name of a probe that was measured.
        took: Seconds of each column, likewise.
    """

    budget: float
    flops: int
    columns: int
    begun: float
    timed: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    took: dict[str, Sequence[float]] = field(default_factory=dict)

    def remaining(self) -> float:
        """Return the seconds that are left."""
        return self.budget - present().first(time.perf_counter() - self.begun)

    def seconds(self, name: str, work: float) -> float:
        """Return the seconds that a probe is expected to take for sample passes of a column."""
        return work * self.rates.get(name, self.guess())

    def guess(self) -> float:
        """Return the seconds for a sample pass in every column, of a probe that was not timed."""
        one = self.flops / SPEED if self.timed is None else SLACK * self.timed
        return one * self.times()

    def times(self) -> float:
        """Return how many times the first column's time all columns take, as it was so far."""
        whole = [each for each in self.took.values() if len(each) == self.columns and all(each)]
        first = sum(each[0] for each in whole)
        ratio = sum(map(sum, whole)) / first if first else float(self.columns)
        return present().first(ratio)

    def knows(self) -> bool:
        """Tell whether anything was timed."""
        return self.timed is not None or bool(self.rates)

    def learn(self, name: str, work: float) -> None:
        """Take note of the rate of a probe, of what it took for so many sample passes a column."""
        self.rates[name] = present().first(sum(self.took[name])) / max(work, 1.0)

    def learn_at_least(self, name: str, seconds: float, work: float) -> None:
        """Take note of the rate of a probe that was given up after so many seconds."""
        self.rates[name] = seconds / max(work, 1.0)
