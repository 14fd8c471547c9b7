"""A queue of runs in a database: SQLite, PostgreSQL, MariaDB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trainscope.records import Json
from trainscope.studies import tables
from trainscope.studies.processes import is_gone
from trainscope.studies.queues import (
    DIGEST,
    PROCESS,
    SQLITE,
    STATUS,
    Changed,
    StoredStudy,
    compared,
    one_more_died,
)
from trainscope.studies.tables import Entry

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import Engine


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

    def studies(self) -> list[StoredStudy]:
        """Read them in two queries."""
        with self._asking() as ask:
            return [StoredStudy(*each) for each in tables.studies(ask)]

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
            one_more_died(self.storage, trial)
        return len(found)

    def entries(self, study: int, names: Sequence[str]) -> list[Entry]:
        """Read them in two queries."""
        with self._asking() as ask:
            return tables.entries(ask, study, names)

    def counts(self, study: int) -> dict[str, int]:
        """Let the database count."""
        with self._asking() as ask:
            return tables.count(ask, study)
