"""Measurements where a Trainer keeps its own: Lightning's loggers, Hugging Face's `report_to`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainscope.errors import ProbeError
from trainscope.probes.sinks.sink import About, Sink, begin, close, numbers
from trainscope.records import Taken

LOGGER = "logger"
"""The name of this sink."""


class Logger:
    """Takes whatever the Trainer's callback lends: `LightningProbes` or `TrainerProbes`.

    Several sinks are written as one: where one of them fails, what it missed is written again to
    it alone.
    """

    def __init__(self) -> None:
        self._sinks: tuple[Sink, ...] | None = None
        self._done: tuple[Taken, int] | None = None

    def __str__(self) -> str:
        return "the Trainer's logger"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: a Trainer lends it its own."""
        return {"_sinks": None, "_done": None}

    def lend(self, sinks: Iterable[Sink]) -> None:
        """Say what to write to."""
        self._sinks = tuple(sinks)

    def begin(self, about: About) -> None:
        """Pass it on.

        Raises:
            ProbeError: There is no Trainer that lends its loggers.
        """
        if self._sinks is None:
            raise ProbeError(
                "the sink 'logger' is a Trainer's: attach the hook with LightningProbes or "
                "TrainerProbes, or name a tracker"
            )
        for sink in self._sinks:
            begin(sink, about)

    def write(self, taken: Taken) -> None:
        """Write to each that has not taken it."""
        done = self._done[1] if self._done is not None and self._done[0] is taken else 0
        for sink in (self._sinks or ())[done:]:
            sink.write(taken)
            done += 1
            self._done = taken, done
        self._done = None

    def close(self) -> None:
        """Close those that can be closed."""
        for sink in self._sinks or ():
            close(sink)


class LightningLogger:
    """One logger of a Lightning Trainer: numbers as `PROBE/NAME` by `log_metrics`, at their step.

    The logger stays the Trainer's, and is not closed here.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def __str__(self) -> str:
        return f"Lightning's {type(self.logger).__name__}"

    def write(self, taken: Taken) -> None:
        """Log the numbers that there are."""
        found = numbers(taken)
        if found:
            self.logger.log_metrics(found, step=int(taken.step))
