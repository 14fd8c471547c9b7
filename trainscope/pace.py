"""How far the work at hand has come, and when it must end.

Whoever passes samples through a network calls `tick`, which costs nothing where nobody listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

CUT = "the measurement was cut short before this was known"
"""The reason why a number is missing that an interruption came before."""


class OverTimeError(BaseException):
    """The time for a piece of work is up. No error, and so past whatever handles those."""


@dataclass
class Pace:
    """A piece of work.

    Attributes:
        expected: Sample passes that it will take; a backward pass counts as two.
        deadline: When it must end, as `time.perf_counter` counts; None for never.
        tell: Called with the share that is done, from 0 to 1.
        partial: Whoever set the pace takes what is known when the work is cut short.
        done: Passes so far.
        cut: What cut the work short, where `cut_short` was asked to hold it back.
    """

    expected: float
    deadline: float | None = None
    tell: Callable[[float], None] | None = None
    partial: bool = False
    done: float = 0.0
    cut: BaseException | None = None

    def add(self, passes: float) -> None:
        """Count passes.

        Raises:
            OverTimeError: The deadline is over.
        """
        self.done += passes
        if self.tell is not None:
            self.tell(min(1.0, self.done / max(self.expected, 1.0)))
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise OverTimeError


_PRESENT: ContextVar[Pace | None] = ContextVar("pace", default=None)


@contextmanager
def paced(pace: Pace) -> Iterator[Pace]:
    """Let the ticks inside the block count for a piece of work."""
    token = _PRESENT.set(pace)
    try:
        yield pace
    finally:
        _PRESENT.reset(token)


INTERRUPTIONS = (OverTimeError, KeyboardInterrupt)
"""What cuts work short."""


def cut_short(error: BaseException, *, tells: bool = True) -> None:
    """Hold an interruption back, so that what is known by now can be handed on.

    Whoever set the pace raises it again once they have that.

    Args:
        error: One of `INTERRUPTIONS`.
        tells: Anything is known by now.

    Raises:
        BaseException: The interruption, where nothing is known, where nobody takes a part of the
            work, and where it is the second one.
    """
    pace = _PRESENT.get()
    if not tells or pace is None or not pace.partial or pace.cut is not None:
        raise error
    pace.cut, pace.deadline = error, None


def was_cut_short() -> bool:
    """Tell whether an interruption of the work at hand was held back."""
    pace = _PRESENT.get()
    return pace is not None and pace.cut is not None


def tick(forward: int = 0, backward: int = 0) -> None:
    """Count samples that were put forward and backward, for whoever listens.

    Raises:
        OverTimeError: The time for the work is up.
    """
    pace = _PRESENT.get()
    if pace is not None:
        pace.add(forward + 2 * backward)
