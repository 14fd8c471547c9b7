"""What the sinks of experiment trackers share: whose run it is, and what is written of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from trainscope.errors import ProbeError
from trainscope.probes.sinks.sink import About, NotAskedError, numbers, reasons
from trainscope.records import Status, Taken

PROJECT = "trainscope"
"""What a run of ours belongs to where neither a person nor the environment says it."""


class Tracker(ABC):
    """A run in an experiment tracker.

    Where the training has a run of its own under way, measurements go there and it is left open;
    otherwise a run is started with the first measurement, and ended by `close`. Numbers are named
    `PROBE/NAME`, standard errors `PROBE/NAME_se`; how a measurement ended, where it did not end
    well, and why a number is missing, are texts beside them.

    Args:
        project: Of a run that is started here; by default what the environment says.
        name: Of such a run; by default the tracker thinks of one.

    Raises:
        ProbeError: The tracker's package is not installed.
    """

    package: str
    """What is imported, and the extra that installs it."""
    label: str
    """What it is called in sentences."""

    def __init__(self, *, project: str | None = None, name: str | None = None) -> None:
        self.project, self.name = project, name
        self._forget()
        self._library()

    def _forget(self) -> None:
        """Be a sink that has no run yet."""
        self._about = About()
        self._run: Any = None
        self._own = False
        self._id: str | None = None
        self._said: dict[str, str] = {}

    def _library(self) -> Any:
        try:
            return import_module(self.package)
        except ImportError as error:
            raise ProbeError(
                f"{self.label} needs the package {self.package}: pip install {self.package}, or "
                f"'trainscope-pruning[{self.package}]'"
            ) from error

    def __str__(self) -> str:
        return self.label

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: it finds or starts a run of its own."""
        return {"project": self.project, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be such a copy."""
        vars(self).update(state)
        self._forget()

    @property
    def run_id(self) -> str | None:
        """What the run of ours is found by again; None where there is none, or it is not ours."""
        return self._id if self._own else None

    def begin(self, about: About) -> None:
        """Take the run that is under way, so that it is the one even if it ends before a write."""
        self._about = about
        if self._id is None and about.resume is not None:
            self._id, self._own = about.resume, True
        if not self._own:
            self._join()

    def _join(self) -> bool:
        active = self._active()
        if active is None:
            return False
        if active is not self._run:
            self._run, self._own, self._said = active, False, {}
            self._describe(self._about.parameters)
        return True

    def write(self, taken: Taken) -> None:
        """Write the numbers at their step, and the texts that changed.

        Raises:
            Exception: Whatever the tracker raises.
        """
        if self._run is None and (self._own or not self._join()):
            name, project = self.name or self._about.name, self.project or self._about.project
            self._run = self._start(name, project, self._id)
            self._own = True
            self._describe(self._about.parameters)
        texts = reasons(taken)
        changed = {
            key: text for key, text in texts.items() if self._said.get(key, str(Status.OK)) != text
        }
        self._log(numbers(taken), changed, taken)
        self._said |= changed

    def close(self) -> None:
        """End the run if it was started here."""
        if self._run is not None and self._own:
            run, self._run = self._run, None
            self._end(run)

    def seen(self, key: str) -> int | None:
        """Return the last step at which our run has a number, None where it has none.

        Raises:
            NotAskedError: The tracker does not tell.
        """
        raise NotAskedError(f"{self} does not tell")

    @abstractmethod
    def _active(self) -> Any:
        """Return the run that somebody else has under way, or None."""

    @abstractmethod
    def _start(self, name: str | None, project: str | None, resume: str | None) -> Any:
        """Start a run, or go on with one; set `_id`."""

    @abstractmethod
    def _describe(self, parameters: Mapping[str, str | float]) -> None:
        """Write what does not change, once."""

    @abstractmethod
    def _log(self, values: dict[str, float], texts: dict[str, str], taken: Taken) -> None:
        """Write numbers and texts of one measurement."""

    @abstractmethod
    def _end(self, run: Any) -> None:
        """End a run of ours."""
