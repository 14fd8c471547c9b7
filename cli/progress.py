"""Progress on stderr: what is being done, since when, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainscope.cli.printing import progress_console
from trainscope.records.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

WIDTH = 24
"""Letters of a bar."""
SHOWN = 0.1
"""Seconds between two states of a bar."""
KNOWN = 0.02
"""The share from which on the time left is told."""


class Telling:
    """Says what is done next, and how far that is."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console, self._status = console, status
        self._begun = self._step_begun = time.monotonic()
        self._step, self._last = "", 0.0

    def __call__(self, step: str) -> None:
        """Say what is done next: a line, which stays."""
        from rich.text import Text

        now = time.monotonic()
        words = Text.assemble((f"{now - self._begun:6.1f} s", "dim"), f"  {plain(step)}")
        self._console.print(words, soft_wrap=True)
        self._status.update(Text(plain(step)))
        self._step, self._step_begun, self._last = step, now, 0.0

    def share(self, done: float) -> None:
        """Show how much of the step is done, 0 to 1: a bar, on a terminal alone."""
        from rich.text import Text

        now = time.monotonic()
        if now - self._last < SHOWN:
            return
        self._last = now
        full = round(WIDTH * done)
        words = f"{plain(self._step)}  [{'#' * full}{'-' * (WIDTH - full)}] {done:4.0%}"
        if KNOWN <= done < 1:
            left = (now - self._step_begun) * (1 - done) / done
            words += f", about {left:.0f} s left"
        self._status.update(Text(words))


@contextmanager
def progress() -> Iterator[Telling]:
    """Lend a function that says what is done next.

    On a terminal the present step spins, with a bar where it is known how far it is, and the past
    ones stay as lines; elsewhere every step is a line.
    """
    console = progress_console()
    with console.status("starting") as status:
        yield Telling(console, status)
