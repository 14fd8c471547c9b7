"""A whole Run or Diagnosis sent to trackers: while it is made, once more after a kill, or later."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainscope.errors import ProbeError, TrainscopeError
from trainscope.probes.reported import (
    of_diagnosis,
    of_epochs,
    of_run,
    parameters_of,
    parameters_of_diagnosis,
)
from trainscope.probes.sinks.named import as_sinks
from trainscope.probes.sinks.sink import (
    About,
    Askable,
    HasRuns,
    NotAskedError,
    Sink,
    begin,
    close,
    name_of,
    numbers,
)
from trainscope.probes.subject.wrappers import is_first_rank
from trainscope.records import Diagnosis, Run, Taken
from trainscope.records.files import write_text
from trainscope.records.json_text import parse
from trainscope.training.state import State

log = logging.getLogger(__name__)

LEDGER = "trackers.json"
"""Beside a Run: which tracker's run it is, and how much of it was sent."""
REST = 20
"""After an attempt of t seconds that failed, none is made for so many times t."""


def report(
    what: Run | Diagnosis, to: object, *, project: str | None = None, name: str | None = None
) -> None:
    """Send a Run, or a Diagnosis, to one sink or several.

    >>> report(trainscope.Run.load("runs/one"), to="mlflow")  # doctest: +SKIP

    Args:
        what: All its epochs and measurements are sent, or those of each column.
        to: As `ProbeHook(sink=...)` takes it: "mlflow", "wandb", "trackio", "tensorboard", a sink,
            or several of them.
        project: Of a tracker's run that is started for it (MLflow: the experiment).
        name: Of such a run; by default what was trained or measured.

    Raises:
        ProbeError: There is no such sink, its package is missing, or it does not take everything.
    """
    sinks = as_sinks(to)
    if not is_first_rank():
        return
    if isinstance(what, Run):
        items, parameters = of_run(what), parameters_of(what)
        name = name or " ".join(filter(None, (str(what.kind), what.architecture)))
    else:
        items, parameters = of_diagnosis(what), parameters_of_diagnosis(what)
        name = name or what.network.architecture
    about = About(parameters, name, project)
    for sink in sinks:
        done = 0
        try:
            begin(sink, about)
            for item in items:
                sink.write(item)
                done += 1
            close(sink)
        except TrainscopeError:
            raise
        except Exception as error:  # whatever the tracker's package raises
            raise ProbeError(
                f"{name_of(sink)} took {done} of {len(items)} measurements: "
                f"{type(error).__name__}: {error}"
            ) from error


class Reporter:
    """Sends what a training comes to, epoch by epoch, to sinks that may fail, and nothing twice.

    Where a sink fails the training goes on, and what it has not taken is sent after a later epoch,
    or at the end. What was sent is kept in a file, so that a training that is taken up again goes
    on in the same run of the tracker; one that can be asked is asked what it has.

    Args:
        sinks: By name.
        about: What the training is.
        ledger: The file; None keeps it in memory.
        tell: Gets each warning.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        about: About,
        ledger: Path | None = None,
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        self._ledger, self._tell = ledger, tell
        self._kept = _read(ledger)
        self._lines = [_Line(name, sink, about, self._kept.get(name)) for name, sink in
                       (sinks.items() if is_first_rank() else ())]  # fmt: skip

    def update(self, items: Sequence[Taken]) -> None:
        """Send what is new.

        Args:
            items: All that there is so far, in an order that stays.
        """
        for line in self._lines:
            if time.monotonic() >= line.again:
                self._send(line, items)

    def on_state(self, state: State) -> None:
        """Send what is new in the state of a training, as `Watch.on_state` gives it."""
        start = state.start_metric
        self.update(of_epochs(state.records, state.measurements, start, state.metric))

    def end(self, run: Run) -> None:
        """Send what is left of a Run, and say what was not sent."""
        items = of_run(run)
        for line in self._lines:
            self._send(line, items)
            left = len(items) - line.sent
            if left:
                self._tell(
                    f"{name_of(line.sink)} has not taken {left} of {len(items)} measurements "
                    f"({line.fault}): the run itself is whole, and the same command sends the rest"
                )

    def close(self) -> None:
        """Close the sinks; may be called twice."""
        for line in self._lines:
            try:
                close(line.sink)
            except Exception as error:
                self._tell(f"{name_of(line.sink)} did not close: {error}")

    def _send(self, line: _Line, items: Sequence[Taken]) -> None:
        begun = time.monotonic()
        try:
            line.open(items)
            if line.sent < len(items):
                self._keep(line, len(items))
            while line.sent < len(items):
                line.sink.write(items[line.sent])
                line.sent += 1
        except Exception as error:  # whatever the tracker's package raises
            line.again = time.monotonic() + REST * (time.monotonic() - begun)
            first, line.fault = line.fault is None, f"{type(error).__name__}: {error}"
            if first:
                self._tell(
                    f"{name_of(line.sink)} failed ({line.fault}): the training goes on, and what "
                    "it has not taken is sent later"
                )
            log.debug("the error in full:", exc_info=True)
        else:
            line.fault = None
        self._keep(line, line.sent)

    def _keep(self, line: _Line, sent: int) -> None:
        """Note what is sent, or about to be: after a kill nothing may come twice."""
        noted = {"run": line.run_id, "sent": sent}
        if self._ledger is None or self._kept.get(line.name) == noted:
            return
        if sent > line.sent and line.run_id is None and line.has_runs:
            return  # the run is to be started yet, and to be found again
        self._kept[line.name] = noted
        try:
            write_text(self._ledger, json.dumps(self._kept, indent=2) + "\n")
        except TrainscopeError as error:
            log.warning("%s", error)


class _Line:
    """One sink of a Reporter, and how far it is."""

    def __init__(self, name: str, sink: Sink, about: About, kept: Mapping[str, Any] | None) -> None:
        self.name, self.sink = name, sink
        self._known = kept or {}
        self._about = replace(about, resume=self._known.get("run"))
        self._opened = False
        self.sent, self.again = 0, 0.0
        self.fault: str | None = None

    @property
    def has_runs(self) -> bool:
        """Whether it is a tracker, whose run is found again by a name."""
        return isinstance(self.sink, HasRuns)

    @property
    def run_id(self) -> str | None:
        found = self.sink.run_id if isinstance(self.sink, HasRuns) else None
        return found if found is None else str(found)

    def open(self, items: Sequence[Taken]) -> None:
        """Begin, and find out what is there already, once."""
        if self._opened:
            return
        begin(self.sink, self._about)
        if self._known and (self._about.resume is not None or not self.has_runs):
            self.sent = self._there(items)
        self._opened = True

    def _there(self, items: Sequence[Taken]) -> int:
        noted = self._known.get("sent")
        claimed = min(noted, len(items)) if isinstance(noted, int) else 0
        asked: dict[str, int | None] = {}
        seen = self.sink.seen if isinstance(self.sink, Askable) else None
        try:
            for number in range(len(items), 0, -1):
                key = next(iter(numbers(items[number - 1])), None)
                if seen is None or key is None:
                    continue
                if key not in asked:
                    asked[key] = seen(key)
                last = asked[key]
                if last is not None and items[number - 1].step <= last:
                    return number
        except NotAskedError:
            return claimed
        return claimed if seen is None else 0


def _read(ledger: Path | None) -> dict[str, Any]:
    """Return what was noted; nothing where it cannot be read, so that a new run is begun."""
    if ledger is None or not ledger.exists():
        return {}
    try:
        found = parse(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        log.warning("%s is damaged: new runs are begun in the trackers", ledger)
        return {}
    rows = found.items() if isinstance(found, dict) else ()
    return {name: row for name, row in rows if isinstance(row, dict)}
