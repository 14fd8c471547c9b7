"""Measurements in a Trackio run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any
from uuid import uuid4

from trainscope.probes.sinks.tracker import PROJECT, Tracker
from trainscope.records import Taken


class Trackio(Tracker):
    """Rows of a Trackio run: the one of `trackio.init`, or one of our own.

    In a run that is not ours the number of its next row stays what it was. What Trackio prints goes
    to stderr. Texts are values of rows; parameters are the configuration of a run of ours.
    """

    package, label = "trackio", "Trackio"

    def _active(self) -> Any:
        return self._library().context_vars.current_run.get()

    def _start(self, name: str | None, project: str | None, resume: str | None) -> Any:
        trackio = self._library()
        project = project or os.environ.get("TRACKIO_PROJECT") or PROJECT
        if resume is not None:
            project, name = resume.split("/", 1)
        elif name is None:
            name = f"run-{uuid4().hex[:8]}"
        with redirect_stdout(sys.stderr):
            run = trackio.init(
                project=project,
                name=name,
                config=dict(self._about.parameters),
                resume="never" if resume is None else "allow",
                embed=False,
            )
        # Not the process's current run, so that `trackio.init` and `log` stay the user's.
        trackio.context_vars.current_run.set(None)
        self._id = f"{project}/{name}"
        return run

    def _describe(self, parameters: Mapping[str, str | float]) -> None:
        """Leave it: a run's configuration is given when it is started."""

    def _log(self, values: dict[str, float], texts: dict[str, str], taken: Taken) -> None:
        run = self._run
        if not values and not texts:
            return
        next_row = getattr(run, "_next_step", None)
        run.log({**values, **texts}, step=int(taken.step))
        if not self._own and next_row is not None:
            run._next_step = next_row

    def seen(self, key: str) -> int | None:
        """Return the last step at which our run has a number."""
        if self._id is None:
            return None
        from trackio.sqlite_storage import SQLiteStorage

        project, name = self._id.split("/", 1)
        rows = SQLiteStorage.get_logs(project, name)
        return max((int(row["step"]) for row in rows if key in row), default=None)

    def _end(self, run: Any) -> None:
        with redirect_stdout(sys.stderr):
            run.finish()
