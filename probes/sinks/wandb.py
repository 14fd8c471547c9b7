"""Measurements in a Weights & Biases run, on a step axis of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from trainscope.probes.sinks.sink import EPOCH, NotAskedError, series
from trainscope.probes.sinks.tracker import PROJECT, Tracker
from trainscope.probes.sinks.wandb_offline import history, offline_files
from trainscope.records import Taken

log = logging.getLogger(__name__)

STEP, EPOCHS = "trainscope/step", "trainscope/epoch"
"""The axes; W&B's own step only counts rows."""


class WandB(Tracker):
    """Rows of a W&B run: `wandb.run` if there is one, else one of our own, offline as online.

    Numbers have the axis `trainscope/step` (per epoch: `trainscope/epoch`), and never W&B's step.
    In a run that is not ours they join the row that is being filled; a new row is begun only where
    that would write over a number. A loop that passes `step=` to `log` decides about rows itself:
    there the latest of each number per row is kept, which is logged once, so that none of its own
    rows is refused. Texts are in the summary, parameters in the configuration.
    """

    package, label = "wandb", "W&B"

    def _forget(self) -> None:
        super()._forget()
        self._defined: set[str] = set()
        self._row: dict[str, float] = {}
        self._at: int | None = None
        self._thinned = False

    def _active(self) -> Any:
        return self._library().run

    def _start(self, name: str | None, project: str | None, resume: str | None) -> Any:
        wandb = self._library()
        project = project or (None if os.environ.get("WANDB_PROJECT") else PROJECT)
        how: dict[str, Any] = {} if resume is None else {"id": resume, "resume": "allow"}
        # Not the process's `wandb.run`, so that `wandb.init` stays the user's.
        run = wandb.init(project=project, name=name, reinit="create_new", **how)
        self._id, self._defined = str(run.id), set()
        return run

    def _describe(self, parameters: Mapping[str, str | float]) -> None:
        run = self._run
        for axis in (STEP, EPOCHS):
            run.define_metric(axis, hidden=True)
        if parameters:
            held = dict(parameters) if self._own else {"trainscope": dict(parameters)}
            run.config.update(held, allow_val_change=True)

    def _log(self, values: dict[str, float], texts: dict[str, str], taken: Taken) -> None:
        run, axis = self._run, EPOCHS if taken.moment == EPOCH else STEP
        group = f"{series(taken)}/*"
        if group not in self._defined:
            run.define_metric(group, step_metric=axis)
            self._defined.add(group)
        if texts:
            run.summary.update(texts)
        if values:
            row = {**values, axis: int(taken.step)}
            run.log(row) if self._own else self._beside(run, row)

    def _beside(self, run: Any, row: dict[str, float]) -> None:
        """Put numbers into somebody else's run without taking a row that is still to come."""
        at = run.step
        if at != self._at:
            self._row = {}
        clash = any(
            key in self._row and (key not in (STEP, EPOCHS) or self._row[key] != value)
            for key, value in row.items()
        )
        if clash and not _counts_rows(run):
            run.log({}, commit=True)
            self._row = {}
        elif clash and not self._thinned:
            self._thinned = True
            log.warning(
                "the training passes step= to W&B, which takes one row a step: of what was "
                "measured within one, the latest is kept; give W&B no step, or this sink a run of "
                "its own, to keep all"
            )
        run.log(row, commit=False)
        self._row |= row
        self._at = run.step

    def seen(self, key: str) -> int | None:
        """Return the last step at which our run, where it is offline, has a number on the disk.

        Raises:
            NotAskedError: It is not offline, or its file is of another version of W&B.
        """
        files = [] if self._id is None else offline_files(self._id)
        if not files:
            raise NotAskedError("an online run is not asked")
        try:
            rows = [row for path in files for row in history(path) if key in row]
            return max((int(row.get(STEP, row.get(EPOCHS, 0))) for row in rows), default=None)
        except Exception as error:  # the format is W&B's own affair
            raise NotAskedError("the offline file cannot be read") from error

    def _end(self, run: Any) -> None:
        run.finish()


def _counts_rows(run: Any) -> bool:
    """Return whether somebody passed `step=` to this run; W&B keeps that for its own statistics."""
    feature = getattr(getattr(run, "_telemetry_obj", None), "feature", None)
    return bool(getattr(feature, "set_step_log", False))
