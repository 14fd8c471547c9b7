"""Optuna's storages as queues of runs that lose none and give none to two workers.

Trials, their states and heartbeats are Optuna's. Two things are not. Who claims a trial is settled
in one transaction. And a trial whose worker died waits again as it is: Optuna's own retry fails it
and adds a copy, in two writes, and a process that is killed between them loses the run; nor does it
ever find a worker that was killed before its first heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from trainscope.records import Json
from trainscope.studies.tables import Entry

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Made = TypeVar("Made")

DIGEST, SPEC, NAMES = "digest", "spec", "names"
"""User attributes of a trial: which run it is, what to run, what the study calls its parts."""
SEARCH = "search"
"""User attribute of a run whose LR is searched for: how, and what was chosen."""
STATUS, ROW, ERROR = "status", "row", "error"
"""User attributes: how the run ended, its row of results, or why there is none."""
WORKER, DEATHS, BEAT = "worker", "deaths", "beat"
"""User attributes: who does it, how many died of it; in a journal, that its worker lives."""
PROCESS = "process"
"""User attribute of a run under way: the process, as `processes.this_process` names it.

A run that waits has none: its next worker would be taken for the one before that is gone.
"""
FAILED = "failed"
SQLITE = "sqlite:///"
"""How the URL of a file of SQLite begins."""
MOST_DEATHS = 20
"""A run is given up that so many workers died of."""


@dataclass(frozen=True)
class Changed:
    """What a plan did to a queue.

    Attributes:
        added: Runs that are new.
        dropped: Runs that were taken out before they began.
        left: Runs that are done and the study has no longer.
    """

    added: int = 0
    dropped: int = 0
    left: int = 0


@dataclass(frozen=True)
class StoredStudy:
    """A study of the storage.

    Attributes:
        id: Its id.
        name: Its name.
        attrs: Its user attributes.
    """

    id: int
    name: str
    attrs: Json


class Queue(Protocol):
    """Runs that wait, as trials of Optuna's studies."""

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage."""

    def studies(self) -> list[StoredStudy]:
        """Return the studies of the storage."""

    def close(self) -> None:
        """Close connections that are open."""

    def plan(self, study: int, wanted: Mapping[str, Json], *, again: bool = False) -> Changed:
        """Let each digest that is wanted have one trial, and let no other wait.

        Args:
            study: The study's id.
            wanted: By digest, the "params" of a trial (value and distribution by name), and its
                "user" and "system" attributes.
            again: Queue those anew that failed.
        """

    def claim(self, studies: Sequence[int]) -> tuple[int, int] | None:
        """Take a waiting trial, which no other worker has then; return its study's id and its."""

    def beat(self, trial: int) -> None:
        """Say that the worker of a running trial lives."""

    def revive(self, study: int, grace: float) -> int:
        """Let trials wait again whose workers have been silent for more than so many seconds.

        Those of this machine that are gone are found at once.
        """

    def entries(self, study: int, names: Sequence[str]) -> list[Entry]:
        """Return the trials of a study with some of their user attributes."""

    def counts(self, study: int) -> dict[str, int]:
        """Return how many trials are in each state."""


def compared(
    there: Sequence[Entry], wanted: Mapping[str, Json], *, again: bool
) -> tuple[list[str], list[int]]:
    """Return the digests that have no trial, and the trials that wait and are not wanted.

    Args:
        there: The trials with their `DIGEST` and `STATUS`.
        wanted: By digest.
        again: Take what failed for missing.
    """
    held = set()
    for entry in there:
        dropped = entry.state == "PRUNED" and STATUS not in entry.attrs
        if not dropped and not (again and entry.state == "FAIL"):
            held.add(entry.attrs.get(DIGEST))
    missing = [digest for digest in wanted if digest not in held]
    extra = [e.trial for e in there if e.state == "WAITING" and e.attrs.get(DIGEST) not in wanted]
    return missing, extra


def one_more_died(storage: BaseStorage, trial: int) -> None:
    """Count a dead worker, and give the run up that too many died of."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    held = storage.get_trial(trial)
    deaths = int(held.user_attrs.get(DEATHS, 0)) + 1
    try:
        storage.set_trial_user_attr(trial, DEATHS, deaths)
        if deaths >= MOST_DEATHS and held.state is TrialState.WAITING:
            storage.set_trial_user_attr(trial, ERROR, f"{deaths} workers died while they did it")
            storage.set_trial_user_attr(trial, STATUS, FAILED)
            storage.set_trial_state_values(trial, TrialState.FAIL)
    except UpdateFinishedTrialError:  # another worker was fast
        return


def steady(call: Callable[[], Made], times: int = 5) -> Made:
    """Call what another process may disturb at the same moment, and again where it did.

    Raises:
        Exception: The last one, where it fails so many times.
    """
    for _ in range(times - 1):
        try:
            return call()
        except Exception:  # whatever a database raises
            time.sleep(0.2)
    return call()
