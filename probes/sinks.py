"""Where what a hook measured goes: anything with one method, `write`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from trainscope.errors import ProbeError
from trainscope.records import Taken


@runtime_checkable
class Sink(Protocol):
    """Takes what was measured, one at a time. A `close` method, where there is one, ends it."""

    def write(self, taken: Taken) -> None:
        """Take one measurement."""


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


class JsonLines:
    """A file with one JSON object a line, appended to; `read` reads it back.

    Args:
        path: The file; its folder is made where it is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def write(self, taken: Taken) -> None:
        """Append one line and flush it."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(taken.to_json(), allow_nan=False, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; another `write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def read(path: str | Path) -> list[Taken]:
        """Return what a file holds."""
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return [Taken.from_json(json.loads(line)) for line in lines if line.strip()]


class TensorBoard:
    """Event files for TensorBoard: each scalar as `PROBE/NAME`, at its step.

    Args:
        target: The folder of the event files, or a `SummaryWriter` that is already open.

    Raises:
        ProbeError: The package tensorboard is not installed.
    """

    def __init__(self, target: Any) -> None:
        self._own = isinstance(target, str | Path)
        if not self._own:
            self.writer = target
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ProbeError(
                "event files need the package tensorboard: pip install tensorboard"
            ) from error
        self.writer = SummaryWriter(str(target))

    def write(self, taken: Taken) -> None:
        """Add the scalars that have a value; the moment is part of the name where it is no step."""
        name = taken.measurement.probe
        if "action" in taken.moment:
            name += f" {taken.moment}"
        for scalar, found in taken.measurement.scalars.items():
            if found.value is not None:
                self.writer.add_scalar(f"{name}/{scalar}", found.value, int(taken.step))

    def close(self) -> None:
        """Close the writer if it was opened here, else flush it."""
        if self._own:
            self.writer.close()
        else:
            self.writer.flush()


class Calls:
    """A function, called with each measurement."""

    def __init__(self, function: Callable[[Taken], object]) -> None:
        self.function = function

    def write(self, taken: Taken) -> None:
        """Call the function."""
        self.function(taken)


def as_sink(target: object) -> Sink:
    """Return a sink for what a person gives: a sink, a path (JSON lines), or a function.

    Raises:
        ProbeError: It is none of these.
    """
    if isinstance(target, Sink):
        return target
    if isinstance(target, str | Path):
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
