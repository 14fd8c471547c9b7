"""The way from the device to the sinks, on which nothing is lost and nothing can raise."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable

from trainscope.errors import ProbeError
from trainscope.probes.hooks.step_norms import StepNorms
from trainscope.probes.sinks.sink import About, Sink, begin, close, name_of
from trainscope.records import Taken

log = logging.getLogger(__name__)

KEPT = 10_000
"""Measurements that wait at most for a sink that fails; beyond, the oldest are lost."""

TRIES = 100
"""Failures after which it may be one measurement's fault, so that the next one is tried."""

REST, LONG = 20, 0.1
"""A failed attempt of t seconds, where t is long, is followed by none for so many times t."""

PATIENCE = 30.0
"""Seconds that failed attempts may take at the end before the rest is given up."""

OUTAGES = 10
"""Outages of a sink that are logged as warnings; flapping must not fill the log."""


class Outlet:
    """One sink, and what waits for it. What it takes, it takes in order, and once.

    A measurement that a working sink refuses by itself is set aside, and tried again at the end.

    Args:
        sink: Where to; it may raise.
        clock: Seconds; for tests.
    """

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self.sink, self.lost = sink, 0
        self._clock, self._again, self._spent = clock, 0.0, 0.0
        self._waiting: deque[Taken] = deque()
        self._refused: list[Taken] = []
        self._tries = self._outages = 0
        self._down = self._busy = self._closed = False

    @property
    def unwritten(self) -> list[Taken]:
        """What waits, in order."""
        return [*self._refused, *self._waiting]

    def write(self, taken: Taken) -> None:
        """Hand a measurement on, after those that wait."""
        self._closed = False
        self._waiting.append(taken)
        if len(self._waiting) + len(self._refused) > KEPT:
            (self._refused.pop(0) if self._refused else self._waiting.popleft())
            self.lost += 1
        if not self._busy and self._clock() >= self._again:
            self._busy = True  # a sink may make the hook write, from inside
            try:
                self._deliver()
            finally:
                self._busy = False

    def begin(self, about: About) -> None:
        """Say what the training is.

        Raises:
            ProbeError: The sink cannot be one here, which a person can put right.
        """
        try:
            begin(self.sink, about)
        except ProbeError:
            raise
        except Exception as error:
            self._tell(error)

    def end(self) -> None:
        """Try all that waits a last time, and close the sink."""
        if self._busy or (self._closed and not self.unwritten):
            return
        self._spent = 0.0
        left = [t for t in self.unwritten if self._spent > PATIENCE or not self._sent(t)]
        self._refused, self._waiting = [], deque(left)
        if left or self.lost:
            log.log(
                logging.DEBUG if self._closed else logging.WARNING,
                "%s never took %d measurements: %d are in the hook's `unwritten`, and the %d "
                "oldest, beyond the %d that are kept, are lost",
                *(name_of(self.sink), len(left) + self.lost, len(left), self.lost, KEPT),
            )
            self.lost = 0
        self._closed = True
        try:
            close(self.sink)
        except Exception as error:
            log.warning("%s did not close: %s", name_of(self.sink), error)
            log.debug("the error in full:", exc_info=True)

    def _deliver(self) -> None:
        while self._waiting:
            if self._sent(self._waiting[0]):
                self._tries = 0
                self._waiting.popleft()
                continue
            self._tries += 1
            alone = self._tries % TRIES == 0 and len(self._waiting) > 1
            if not alone or not self._sent(self._waiting[1]):
                return
            self._refused.append(self._waiting.popleft())
            self._waiting.popleft()

    def _sent(self, taken: Taken) -> bool:
        begun = self._clock()
        try:
            self.sink.write(taken)
        except Exception as error:
            spent = self._clock() - begun
            self._spent += spent
            self._again = begun + spent + (REST * spent if spent > LONG else 0.0)
            self._tell(error)
            return False
        if self._down:
            self._down = False
            log.info("%s takes measurements again", name_of(self.sink))
        return True

    def _tell(self, error: Exception) -> None:
        """Warn once an outage."""
        if self._down:
            return
        self._down, self._outages = True, self._outages + 1
        if self._outages <= OUTAGES:
            log.warning(
                "%s failed (%s: %s): the training goes on, and up to %d measurements are kept and "
                "written when it works again, or at the end%s",
                *(name_of(self.sink), type(error).__name__, error, KEPT),
                "; later failures of it are not logged" if self._outages == OUTAGES else "",
            )
        log.debug("the error in full:", exc_info=True)


class Recorder:
    """The norms that wait on the device, and the outlets of a hook.

    Knows nothing of the hook, so that it can end what a hook leaves that nobody detached.

    Attributes:
        silent: Another process of the job writes.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self.outlets = tuple(Outlet(sink) for sink in sinks)
        self.norms: StepNorms | None = None
        self.silent = False
        self._process = os.getpid()

    def begin(self, about: About) -> None:
        """Say to every sink what the training is."""
        for outlet in () if self.silent else self.outlets:
            outlet.begin(about)

    def write(self, taken: Taken) -> None:
        """Hand a measurement to every sink."""
        for outlet in () if self.silent else self.outlets:
            outlet.write(taken)

    def flush(self) -> None:
        """Send what waits on the device to the sinks; this waits for the device."""
        if self.norms is None:
            return
        try:
            found = self.norms.drain()
        except Exception as error:  # a device in an error state: the training will say so itself
            log.warning("the norms of some steps could not be read from the device: %s", error)
            return
        for taken in found:
            self.write(taken)

    def end(self) -> None:
        """Write all that is there, and close the sinks; a process that was forked does not."""
        if os.getpid() != self._process:
            return
        self.flush()
        for outlet in self.outlets:
            outlet.end()
