"""The store of studies: runs as trials of Optuna's storage, and their folders beside it."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError
from trainscope.records import Json, files
from trainscope.studies.named import JOURNAL
from trainscope.studies.opening import file_of, opened
from trainscope.studies.processes import this_process
from trainscope.studies.queues import (
    DIGEST,
    ERROR,
    FAILED,
    NAMES,
    PROCESS,
    ROW,
    SEARCH,
    SPEC,
    STATUS,
    WORKER,
    Changed,
    Queue,
    StoredStudy,
)
from trainscope.studies.tables import Entry

if TYPE_CHECKING:
    from trainscope.studies.planned import Planned
    from trainscope.studies.search import Searched
    from trainscope.studies.spec import RunSpec

RUNS = "runs"
"""The folder of the runs, beside a store that is a file."""
GRACE = 60.0
"""Seconds of silence after which a worker is taken for dead."""
FORMAT, FOLDER, PLAN, ORIGIN = "trainscope", "runs", "plan:", "file"
"""User attributes of a study: that it is ours, where its runs lie, the digests of its plan, and the
file that it was planned from."""
PART = 500
"""Digests of a plan in one attribute: a database may hold no longer text."""


@dataclass(frozen=True)
class Claimed:
    """A run that a worker has taken.

    Attributes:
        study: Its study's id.
        trial: Its own in the storage.
        spec: What to run.
        folder: Where.
        searched: The search that chose its LR; None for none.
    """

    study: int
    trial: int
    spec: RunSpec
    folder: Path
    searched: Searched | None = None


class Store:
    """Where studies and their runs are kept, and how workers share them.

    Args:
        place: The file of a SQLite database, or a folder that holds a `study.db`; the URL of any
            database that SQLAlchemy knows (`postgresql+psycopg://...`); or `journal:PATH`, Optuna's
            journal, for a shared disk on which SQLite's locks do not work.
        folder: Of the runs; by default `runs` beside a file. Of a database elsewhere, needed once.
        make: Make the store where there is none.
        grace: Seconds of silence after which another worker takes up a run; that of a process of
            the same machine is taken up as soon as it is gone.

    Raises:
        StudyError: There is no store, or it cannot be opened.
    """

    def __init__(
        self,
        place: str | Path,
        folder: str | Path | None = None,
        *,
        make: bool = True,
        grace: float = GRACE,
    ) -> None:
        self.place, self.grace = str(place), grace
        if grace < 1:
            raise StudyError(f"a grace of {grace:g} s is too short: heartbeats count in seconds")
        file = file_of(self.place)
        if file is not None and not make and not file.is_file():
            raise StudyError(
                f"{file} is no store of studies, for there is no such file: give the study.db that "
                "`trainscope study run` made, its folder, or the study's TOML file"
            )
        self._file, self._make = file, make
        if self.is_new and file is not None:
            files.try_folder(file.parent)
        else:
            self.queue = opened(self.place, file, make=make)
        self._given = None if folder is None else Path(folder).absolute()
        self._beside = None if file is None else file.absolute().parent / RUNS

    @cached_property
    def queue(self) -> Queue:
        """The storage; its file is made when the first study is put into it, not by a refused one.

        Raises:
            StudyError: It cannot be opened.
        """
        return opened(self.place, self._file, make=self._make)

    @property
    def is_new(self) -> bool:
        """Whether it is a file that nobody has made yet."""
        return (
            self._file is not None
            and self._make
            and "queue" not in self.__dict__
            and not self._file.exists()
        )

    def close(self) -> None:
        """Close the connections to a database; the next call opens new ones."""
        if "queue" in self.__dict__:
            self.queue.close()

    @property
    def location(self) -> str:
        """The place for another process, whose working directory may be another."""
        file = file_of(self.place)
        if file is None:
            return self.place
        return f"{JOURNAL if self.place.startswith(JOURNAL) else ''}{file.absolute()}"

    @property
    def given_folder(self) -> str | None:
        """The folder of the runs that this object was given."""
        return None if self._given is None else str(self._given)

    @property
    def studies(self) -> list[str]:
        """The names of the studies, in the order in which they were made."""
        return [each.name for each in self._ours()]

    def folder_of(self, name: str) -> Path:
        """Return the folder of a study's runs.

        Raises:
            StudyError: Nobody ever said where it is.
        """
        kept = self._attrs(name).get(FOLDER) if name in self.studies else None
        folder = self._given or (None if kept is None else Path(kept)) or self._beside
        if folder is None:
            raise StudyError(f"the store does not say where the runs of {name} lie: give --folder")
        return folder

    def plan(
        self, name: str, runs: Sequence[Planned], *, better: str = "higher", again: bool = False
    ) -> Changed:
        """Let a study be these runs: those that are new wait, and what is not begun is dropped.

        Two drivers may do this at once: each digest gets one trial.

        Args:
            name: Of the study.
            runs: Each digest once.
            better: Which final metric is, "higher" or "lower".
            again: Queue those anew that failed.
        """
        study = self._made(name, better)
        if self._given is not None or self._beside is None:
            if self._given is None and FOLDER not in self._attrs(name):
                raise StudyError("a database elsewhere needs a folder for the runs: give --folder")
            if self._given is not None:
                self.queue.storage.set_study_user_attr(study, FOLDER, str(self._given))
        digests = [each.digest for each in runs]
        old = {key for key in self._attrs(name) if key.startswith(PLAN)}
        for place in range(0, max(len(digests), 1), PART):
            key = f"{PLAN}{place // PART:06d}"
            self.queue.storage.set_study_user_attr(study, key, digests[place : place + PART])
            old.discard(key)
        for key in old:
            self.queue.storage.set_study_user_attr(study, key, [])
        wanted = {each.digest: each.trial() for each in runs}
        return self.queue.plan(study, wanted, again=again)

    def origin(self, name: str) -> Path | None:
        """Return the file that a study was last planned from; None where none is known."""
        kept = self._attrs(name).get(ORIGIN) if name in self.studies else None
        return None if kept is None else Path(kept)

    def keep_origin(self, name: str, file: Path) -> None:
        """Keep the file that a study was planned from."""
        study = self._held(name).id
        self.queue.storage.set_study_user_attr(study, ORIGIN, str(file.absolute()))

    def digests(self, name: str) -> list[str]:
        """Return the digests of a study's plan, in its order."""
        held = self._attrs(name)
        return [digest for key in sorted(held) if key.startswith(PLAN) for digest in held[key]]

    def done(self, name: str) -> set[str]:
        """Return the digests of a study's runs that are done; of a study that is not there none."""
        entries = self.entries(name, (STATUS,)) if name in self.studies else ()
        return {e.attrs[DIGEST] for e in entries if STATUS in e.attrs and e.state != "FAIL"}

    def claim(self, names: Sequence[str] | None = None) -> Claimed | None:
        """Take a run that waits; None where none does.

        Args:
            names: Of the studies; by default all.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        while (found := self.queue.claim(self._of(names))) is not None:
            # A worker may be kept waiting here for so long that another takes it for dead, and
            # does the run.
            with suppress(UpdateFinishedTrialError):
                return self._taken(*found)
        return None

    def _taken(self, study: int, trial: int) -> Claimed:
        """Return a run that was claimed, once its trial says who has it."""
        from trainscope.studies.spec import RunSpec

        attrs = self.queue.storage.get_trial(trial).user_attrs
        spec, searched = RunSpec.from_dict(attrs[SPEC]), None
        if SEARCH in attrs:
            from trainscope.studies.search import Searched

            searched = Searched(self.queue.storage, study, trial, attrs[SEARCH], spec)
            spec = searched.spec()
        for name, value in (
            (WORKER, f"{socket.gethostname()}:{os.getpid()}"),
            (PROCESS, this_process()),
        ):
            self.queue.storage.set_trial_user_attr(trial, name, value)
        name = next(each.name for each in self._ours() if each.id == study)
        return Claimed(study, trial, spec, self.folder_of(name) / spec.key, searched)

    @contextmanager
    def kept_alive(self, claimed: Claimed) -> Iterator[None]:
        """Say from time to time that the worker lives, while the block runs."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(max(self.grace / 4, 0.25)):
                with suppress(Exception):  # a database that is away for a moment
                    self.queue.beat(claimed.trial)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def finish(self, claimed: Claimed, row: Json) -> None:
        """Keep what came out. A run that another worker finished meanwhile stays as it is."""
        from optuna.trial import TrialState

        names = self.queue.storage.get_trial(claimed.trial).user_attrs.get(NAMES, {})
        row = {f"{part}.name": text for part, text in names.items()} | row
        value = row["final"]
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        values = None if value is None else [float(value)]
        self._end(claimed.trial, {ROW: row, STATUS: row["status"]}, state, values)

    def fail(self, claimed: Claimed, why: str) -> None:
        """Keep why there is nothing."""
        from optuna.trial import TrialState

        self._end(claimed.trial, {ERROR: why, STATUS: FAILED}, TrialState.FAIL, None)

    def release(self, claimed: Claimed) -> None:
        """Let a run wait again, for another worker to go on with."""
        from optuna.trial import TrialState

        self._end(claimed.trial, {PROCESS: ""}, TrialState.WAITING, None)

    def revive(self, names: Sequence[str] | None = None) -> int:
        """Let runs wait again whose workers are dead, and return how many.

        A worker of this machine is dead when its process is no more, any other when it was silent
        for longer than the grace.
        """
        return sum(self.queue.revive(study, self.grace) for study in self._of(names))

    def unfinished(self, names: Sequence[str] | None = None) -> int:
        """Return how many runs wait or are under way."""
        counts = [self.queue.counts(study) for study in self._of(names)]
        return sum(each.get("WAITING", 0) + each.get("RUNNING", 0) for each in counts)

    def entries(self, name: str, attrs: Sequence[str]) -> list[Entry]:
        """Return the trials of a study's plan, in its order; of each digest the last.

        Args:
            name: Of the study.
            attrs: Names of user attributes to read, beside the digest.
        """
        found = self.queue.entries(self._held(name).id, (DIGEST, *attrs))
        last = {entry.attrs[DIGEST]: entry for entry in found if DIGEST in entry.attrs}
        return [last[digest] for digest in self.digests(name) if digest in last]

    def counts(self, name: str) -> dict[str, int]:
        """Return how many runs of a study's plan wait, run, are done, or failed."""
        words = {"WAITING": "waiting", "RUNNING": "running", "FAIL": FAILED}
        ended = Counter(
            words.get(entry.state) or entry.attrs.get(STATUS, "done")
            for entry in self.entries(name, (STATUS,))
        )
        return dict(ended)

    def _end(self, trial: int, attrs: Json, state: Any, values: list[float] | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):
            for name, value in attrs.items():
                self.queue.storage.set_trial_user_attr(trial, name, value)
            self.queue.storage.set_trial_state_values(trial, state, values)

    def _ours(self) -> list[StoredStudy]:
        if self.is_new:
            return []
        return [each for each in self.queue.studies() if FORMAT in each.attrs]

    def _of(self, names: Sequence[str] | None) -> list[int]:
        if names is None:
            return [each.id for each in self._ours()]
        return [self._held(name).id for name in names]

    def _attrs(self, name: str) -> Json:
        return self._held(name).attrs

    def _held(self, name: str) -> StoredStudy:
        """Return a study.

        Raises:
            StudyError: There is none of that name.
        """
        there = self._ours()
        found = next((each for each in there if each.name == name), None)
        if found is None:
            names = ", ".join(each.name for each in there) or "none"
            raise StudyError(f"{self.place} holds no study named '{name}': it holds {names}")
        return found

    def _made(self, name: str, better: str) -> int:
        """Return the id of a study, which is made where there is none of that name."""
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        storage = self.queue.storage
        way = StudyDirection.MAXIMIZE if better == "higher" else StudyDirection.MINIMIZE
        with suppress(DuplicatedStudyError):
            storage.create_new_study([way], name)
        study = storage.get_study_id_from_name(name)
        if FORMAT not in storage.get_study_user_attrs(study):
            storage.set_study_user_attr(study, FORMAT, 1)
        return study
