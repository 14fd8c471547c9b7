"""Optuna's storages as queues of runs that lose none and give none to two workers.

Trials, their states and heartbeats are Optuna's. Two things are not. Who claims a trial is settled
in one transaction. And a trial whose worker died waits again as it is: Optuna's own retry fails it
and adds a copy, in two writes, and a process that is killed between them loses the run; nor does it
ever find a worker that was killed before its first heartbeat.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trainscope.records import Json, files
from trainscope.studies import tables
from trainscope.studies.processes import is_gone
from trainscope.studies.tables import Entry

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy import Engine

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
class Held:
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

    def studies(self) -> list[Held]:
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


class RdbQueue:
    """In a database: SQLite, PostgreSQL, MariaDB.

    Args:
        url: As SQLAlchemy takes it.
        make: Make the tables where there are none.
    """

    def __init__(self, url: str, *, make: bool) -> None:
        self.url = url
        self.file = None if not url.startswith(SQLITE) else Path(url.removeprefix(SQLITE))
        if make:
            _ = self.storage

    @cached_property
    def engine(self) -> Engine:
        """SQLAlchemy's, on which all is written."""
        return tables.engine_of(self.url)

    @contextmanager
    def _asking(self) -> Iterator[tables.Ask]:
        if self.file is not None:
            with tables.asking(self.file) as ask:
                yield ask
        else:
            with self.engine.begin() as connection:
                yield tables.asked_of(connection)

    @cached_property
    def storage(self) -> RDBStorage:
        """Optuna's storage, which takes a second to import: what is only read does without."""
        import optuna
        from optuna.storages import RDBStorage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its own dependencies are warned of
            storage = RDBStorage(
                self.url.replace("{", "{{").replace("}", "}}"),
                engine_kwargs=tables.options_of(self.url),
            )
        tables.serialised(storage.engine)
        return storage

    def close(self) -> None:
        """Close those of this object and of Optuna's storage."""
        if "engine" in vars(self):
            self.engine.dispose()
        if "storage" in vars(self):
            self.storage.remove_session()
            self.storage.engine.dispose()

    def studies(self) -> list[Held]:
        """Read them in two queries."""
        with self._asking() as ask:
            return [Held(*each) for each in tables.studies(ask)]

    def plan(self, study: int, wanted: Mapping[str, Json], *, again: bool = False) -> Changed:
        """Add and drop in one transaction."""
        with self.engine.begin() as connection:
            tables.locked(connection, study)
            there = tables.entries(tables.asked_of(connection), study, (DIGEST, STATUS))
            missing, extra = compared(there, wanted, again=again)
            tables.add(connection, study, len(there), [wanted[digest] for digest in missing])
            tables.drop(connection, extra)
        return Changed(len(missing), len(extra))

    def claim(self, studies: Sequence[int]) -> tuple[int, int] | None:
        """Take the first that waits; the heartbeat comes first, so that none is without."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        while True:
            with self.engine.begin() as connection:
                found = tables.first_waiting(connection, studies)
            if found is None:
                return None
            self.beat(found[1])
            try:
                if self.storage.set_trial_state_values(found[1], TrialState.RUNNING):
                    return found
            except UpdateFinishedTrialError:
                continue

    def beat(self, trial: int) -> None:
        """Write the database's time."""
        self.storage.record_heartbeat(trial)

    def revive(self, study: int, grace: float) -> int:
        """Find and requeue in one transaction, which no other worker's is beside."""
        with self.engine.begin() as connection:
            tables.locked(connection, study)
            found = tables.stale(connection, study, grace)
            running = tables.of_running(tables.asked_of(connection), study, PROCESS)
            found = sorted({*found, *(trial for trial, process in running if is_gone(process))})
            for trial in found:
                tables.requeue(connection, trial, forget=PROCESS)
        for trial in found:
            _one_more_died(self.storage, trial)
        return len(found)

    def entries(self, study: int, names: Sequence[str]) -> list[Entry]:
        """Read them in two queries."""
        with self._asking() as ask:
            return tables.entries(ask, study, names)

    def counts(self, study: int) -> dict[str, int]:
        """Let the database count."""
        with self._asking() as ask:
            return tables.count(ask, study)


class JournalQueue:
    """In Optuna's journal, a file on a disk that all workers share; `path` is that file.

    Optuna has no heartbeats there. A worker counts in a user attribute, and another takes it for
    dead that saw the same count for too long: the clocks of two machines are never compared.
    """

    def __init__(self, path: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path = path
        self.storage = JournalStorage(JournalFileBackend(str(path)))
        self._seen: dict[int, tuple[int, float]] = {}
        self._beats: Counter[int] = Counter()

    def close(self) -> None:
        """Do nothing: a journal is open only while it is read or written."""

    def studies(self) -> list[Held]:
        """Read them from the journal as it was replayed."""
        return [
            Held(each._study_id, each.study_name, dict(each.user_attrs))
            for each in self.storage.get_all_studies()
        ]

    def plan(self, study: int, wanted: Mapping[str, Json], *, again: bool = False) -> Changed:
        """Add and drop, while other processes that plan wait."""
        from optuna.distributions import json_to_distribution
        from optuna.trial import TrialState, create_trial

        with files.alone(self.path):
            missing, extra = compared(self.entries(study, (DIGEST, STATUS)), wanted, again=again)
            for digest in missing:
                new = wanted[digest]
                template = create_trial(
                    state=TrialState.WAITING,
                    params={name: value for name, (value, _) in new["params"].items()},
                    distributions={
                        name: json_to_distribution(how) for name, (_, how) in new["params"].items()
                    },
                    user_attrs=new["user"],
                    system_attrs=new["system"],
                )
                self.storage.create_new_trial(study, template)
            for trial in extra:
                if self._set(trial, TrialState.RUNNING):
                    self._set(trial, TrialState.PRUNED)
        return Changed(len(missing), len(extra))

    def claim(self, studies: Sequence[int]) -> tuple[int, int] | None:
        """Take the first that waits; the order of the journal says who was first."""
        from optuna.trial import TrialState

        for study in studies:
            for trial in self.storage.get_all_trials(
                study, deepcopy=False, states=(TrialState.WAITING,)
            ):
                if self._set(trial._trial_id, TrialState.RUNNING):
                    self.beat(trial._trial_id)
                    return study, trial._trial_id
        return None

    def beat(self, trial: int) -> None:
        """Count on."""
        self._beats[trial] += 1
        self.storage.set_trial_user_attr(trial, BEAT, self._beats[trial])

    def revive(self, study: int, grace: float) -> int:
        """Requeue what was seen with the same count for too long."""
        from optuna.trial import TrialState

        revived = 0
        with files.alone(self.path):
            for entry in self.entries(study, (BEAT, PROCESS)):
                if entry.state != "RUNNING":
                    self._seen.pop(entry.trial, None)
                    continue
                beat = entry.attrs.get(BEAT, 0)
                last, since = self._seen.get(entry.trial, (None, 0.0))
                silent = beat == last and time.monotonic() - since > grace
                if silent or is_gone(entry.attrs.get(PROCESS, "")):
                    self.storage.set_trial_user_attr(entry.trial, PROCESS, "")
                    self._set(entry.trial, TrialState.WAITING)
                    _one_more_died(self.storage, entry.trial)
                    revived += 1
                elif beat != last:
                    self._seen[entry.trial] = (beat, time.monotonic())
        return revived

    def entries(self, study: int, names: Sequence[str]) -> list[Entry]:
        """Read them from the journal as it was replayed."""
        return [
            Entry(
                trial._trial_id,
                trial.number,
                trial.state.name,
                {name: trial.user_attrs[name] for name in names if name in trial.user_attrs},
            )
            for trial in self.storage.get_all_trials(study, deepcopy=False)
        ]

    def counts(self, study: int) -> dict[str, int]:
        """Count them."""
        return dict(Counter(entry.state for entry in self.entries(study, ())))

    def _set(self, trial: int, state: Any) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return self.storage.set_trial_state_values(trial, state)
        except UpdateFinishedTrialError:
            return False


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


def _one_more_died(storage: BaseStorage, trial: int) -> None:
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
