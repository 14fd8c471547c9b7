"""Where what a hook measured goes: anything with one method, `write`."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from trainscope.errors import ProbeError
from trainscope.probes.json_lines import JsonLines
from trainscope.records import Taken

__all__ = ["Calls", "JsonLines", "Memory", "Sink", "TensorBoard", "as_sink", "close"]

log = logging.getLogger(__name__)


@runtime_checkable
class Sink(Protocol):
    """Takes what was measured, one at a time. A `close` method, where there is one, ends it.

    Either may raise: the hook keeps what was not taken, and tries again.
    """

    def write(self, taken: Taken) -> None:
        """Take one measurement, or raise and take nothing of it."""


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


class TensorBoard:
    """Event files for TensorBoard: each scalar as `PROBE/NAME`, at its step.

    Args:
        target: The folder of the event files, or a `SummaryWriter` that is already open.

    Raises:
        ProbeError: The package tensorboard is not installed, or the folder cannot be made.
    """

    def __init__(self, target: Any) -> None:
        self._folder = str(target) if isinstance(target, str | Path) else None
        self._begun: tuple[Taken, set[str]] | None = None
        try:
            self.writer = target if self._folder is None else _summary_writer(self._folder)
        except OSError as error:
            raise ProbeError(f"no event files can be made in {self._folder}: {error}") from error

    def __str__(self) -> str:
        return f"TensorBoard in {self._folder or getattr(self.writer, 'log_dir', 'its folder')}"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: it makes event files of its own."""
        kept = None if self._folder is not None else self.writer
        return {"_folder": self._folder, "_begun": None, "writer": kept}

    def write(self, taken: Taken) -> None:
        """Add the scalars that have a value; the moment is part of the name where it is no step.

        Raises:
            OSError: The events cannot be written. Scalars that were are not written again.
        """
        name = taken.measurement.probe
        if "action" in taken.moment:
            name += f" {taken.moment}"
        if self._begun is None or self._begun[0] is not taken:
            self._begun = taken, set()
        done = self._begun[1]
        if self.writer is None and self._folder is not None:
            self.writer = _summary_writer(self._folder)
        try:
            for scalar, found in taken.measurement.scalars.items():
                if found.value is not None and scalar not in done:
                    self.writer.add_scalar(f"{name}/{scalar}", found.value, int(taken.step))
                    if self._folder is None:
                        done.add(scalar)
            if self._folder is not None:
                self.writer.flush()  # its thread writes later, and would lose what it cannot
        except Exception:
            self._abandon()
            raise
        self._begun = None

    def close(self) -> None:
        """Close the writer if it was opened here, else flush it."""
        if self._folder is None:
            self.writer.flush()
        elif self.writer is not None:
            self.writer.close()

    def _abandon(self) -> None:
        """Give up a writer of ours: its thread has ended and takes nothing any more."""
        if self._folder is not None and self.writer is not None:
            writer, self.writer = self.writer, None
            try:
                writer.close()
            except Exception as error:
                log.debug("the event file in %s did not close: %s", self._folder, error)


class Calls:
    """A function, called with each measurement."""

    def __init__(self, function: Callable[[Taken], object]) -> None:
        self.function = function

    def __str__(self) -> str:
        return f"the function {getattr(self.function, '__name__', type(self.function).__name__)}"

    def write(self, taken: Taken) -> None:
        """Call the function."""
        self.function(taken)


def as_sink(target: object) -> Sink:
    """Return a sink for what a person gives: a sink, a path (JSON lines), or a function.

    Raises:
        ProbeError: It is none of these, or the path is a folder's.
    """
    if isinstance(target, io.IOBase):
        raise ProbeError("an open file is no sink: give its path, or a function that writes to it")
    if isinstance(target, Sink) and not isinstance(target, type):
        return target
    if isinstance(target, str | Path):
        if Path(target).is_dir():
            raise ProbeError(f"{str(target)!r} is a folder: give a file for JSON lines")
        return JsonLines(target)
    if callable(target):
        return Calls(target)
    raise ProbeError(
        f"{type(target).__name__} is no sink: give a path, a function, or an object with write()"
    )


def close(sink: Sink) -> None:
    """Close a sink that can be closed."""
    end = getattr(sink, "close", None)
    if end is not None:
        end()


def _summary_writer(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ProbeError(
            "event files need the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(folder)
