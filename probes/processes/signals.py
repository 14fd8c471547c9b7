"""Ctrl-C in a process of a job: not within a collective, which the others would wait in."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 2.0
"""Seconds in which a second Ctrl-C is the first one, handed on by the launcher."""


class Signals:
    """Keeps Ctrl-C out of collectives, which the other processes would wait in for ever."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._busy, self._asked, self._last = 0, False, -GRACE

    def take(self) -> None:
        """Handle the signals that end a process by raising."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._handle)

    def give_back(self) -> None:
        """Leave them to who had them."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        self._asked = False

    def _handle(self, number: int, frame: Any) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before < GRACE:
            return
        if self._busy:
            self._asked = True
        else:
            self._before[number](number, frame)

    @contextmanager
    def held(self, *, quiet: bool = False) -> Iterator[None]:
        """Let a signal wait until the block is over; drop it where the process ends anyway."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
        if self._asked and not self._busy:
            self._asked = False
            if not quiet:
                raise KeyboardInterrupt
