"""What a sink is, and the two that need nothing: a list and a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from trainscope.records import Taken
from trainscope.records.epoch import AFTER_CLIPPING, AFTER_STEP

EPOCH = "after epoch"
"""The moment of what is measured once an epoch: its step is the number of epochs done."""

_USUAL = (AFTER_STEP, AFTER_CLIPPING, EPOCH)
"""Moments that are no part of a name."""


@runtime_checkable
class Sink(Protocol):
    """Takes what was measured, one at a time.

    One that is a `Listener` too is told of the training before the first measurement, and one that
    is `Closable` is closed after the last; another `write` may follow and opens it again. Any of
    these methods may raise: what was not taken is kept, and tried again.
    """

    def write(self, taken: Taken) -> None:
        """Take one measurement, or raise and take nothing of it."""


@dataclass(frozen=True)
class About:
    """What a sink may say of a training beside what is measured.

    Attributes:
        parameters: What does not change in it: the task, the metric, the LR schedule.
        name: What the training is called; None leaves it to the sink.
        project: What it belongs to; None leaves it to the sink.
        folder: The training's own folder, where it has one.
        resume: What `Tracker.run_id` said when the same training was reported before.
    """

    parameters: Mapping[str, str | float] = field(default_factory=dict)
    name: str | None = None
    project: str | None = None
    folder: Path | None = None
    resume: str | None = None


@runtime_checkable
class Listener(Protocol):
    """A sink that is told what the training is."""

    def begin(self, about: About) -> None:
        """Hear of the training, before the first measurement."""


@runtime_checkable
class Closable(Protocol):
    """A sink that has an end."""

    def close(self) -> None:
        """Finish, after the last measurement."""


@runtime_checkable
class HasRuns(Protocol):
    """A tracker, whose run is found again by a name."""

    @property
    def run_id(self) -> str | None:
        """Return that name; None before there is a run."""


@runtime_checkable
class Askable(Protocol):
    """A tracker that says what it has."""

    def seen(self, key: str) -> int | None:
        """Return the last step of a number; None where there is none.

        Raises:
            NotAskedError: It cannot be asked at this moment.
        """


class NotAskedError(Exception):
    """A tracker cannot be asked what it has; its message is the reason."""


class Memory:
    """A list.

    Attributes:
        taken: What was measured, in order.
    """

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    def write(self, taken: Taken) -> None:
        """Append."""
        self.taken.append(taken)


class Calls:
    """A function, called with each measurement."""

    def __init__(self, function: Callable[[Taken], object]) -> None:
        self.function = function

    def __str__(self) -> str:
        return f"the function {getattr(self.function, '__name__', type(self.function).__name__)}"

    def write(self, taken: Taken) -> None:
        """Call the function."""
        self.function(taken)


def begin(sink: Sink, about: About) -> None:
    """Tell a sink that listens what the training is."""
    if isinstance(sink, Listener):
        sink.begin(about)


def close(sink: Sink) -> None:
    """Close a sink that can be closed."""
    if isinstance(sink, Closable):
        sink.close()


def name_of(sink: Sink) -> str:
    """Return what a sink is called in a sentence."""
    named = type(sink).__str__ is not object.__str__
    return str(sink) if named else f"the sink {type(sink).__name__}"


def series(taken: Taken) -> str:
    """Return the name before the slash: the probe, and the moment where it is an unusual one."""
    probe = taken.measurement.probe
    return probe if taken.moment in _USUAL else f"{probe} {taken.moment}"


def numbers(taken: Taken) -> dict[str, float]:
    """Return each number as `PROBE/NAME`, its standard error as `PROBE/NAME_se`."""
    found: dict[str, float] = {}
    for name, scalar in taken.measurement.scalars.items():
        if scalar.value is not None:
            found[f"{series(taken)}/{name}"] = scalar.value
            if scalar.stderr is not None:
                found[f"{series(taken)}/{name}_se"] = scalar.stderr
    return found


def reasons(taken: Taken) -> dict[str, str]:
    """Return how a measurement ended, and why numbers are missing, by names beside theirs."""
    measurement = taken.measurement
    ended = str(measurement.status)
    if measurement.reason:
        ended = f"{ended}: {measurement.reason}"
    found = {f"{series(taken)}/status": ended}
    for name, scalar in measurement.scalars.items():
        if scalar.value is None and scalar.reason:
            found[f"{series(taken)}/{name}_reason"] = scalar.reason
    return found
