"""The store of studies: runs as trials of Optuna's storage, and their folders beside it."""

from __future__ import annotations

import os
import re
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError, TrainscopeError
from trainscope.foreign import reason
from trainscope.records import Json, files
from trainscope.studies.queues import (
    DIGEST,
    ERROR,
    FAILED,
    NAMES,
    ROW,
    SPEC,
    STATUS,
    WORKER,
    Changed,
    JournalQueue,
    Queue,
    RdbQueue,
    steady,
)
from trainscope.studies.rows import Row
from trainscope.studies.spec import RunSpec
from trainscope.studies.tables import Entry, serialised

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy

RUNS = "runs"
"""The folder of the runs, beside a store that is a file."""
FILE = "study.db"
JOURNAL = "journal:"
GRACE = 60.0
"""Seconds of silence after which a worker is taken for dead."""
WAIT = 60.0
"""Seconds that a writer waits for others that write to SQLite."""
FORMAT, FOLDER, PLAN = "trainscope", "runs", "plan:"
"""User attributes of a study: that it is ours, where its runs lie, and the digests of its plan."""
PART = 500
"""Digests of a plan in one attribute: a database may hold no longer text."""


@dataclass(frozen=True)
class Planned:
    """A run of a study.

    Attributes:
        spec: What to run.
        names: What the study calls its parts, like {"action": "L1, 0.9"}.
    """

    spec: RunSpec
    names: Mapping[str, str]

    def trial(self) -> Json:
        """Return what a trial of it holds: its numbers as parameters, and the rest."""
        from optuna.distributions import (
            FloatDistribution,
            IntDistribution,
            distribution_to_json,
        )

        spec, params = self.spec, {}
        wide = FloatDistribution(1e-12, 1e3, log=True)
        params["lr"] = (spec.schedule.lr(0), distribution_to_json(wide))
        whole = distribution_to_json(IntDistribution(0, 2**53))
        params["epochs"], params["seed"] = (spec.schedule.total, whole), (spec.seed, whole)
        if spec.action is not None and spec.action.ratio is not None:
            share = distribution_to_json(FloatDistribution(0.0, 1.0))
            params["ratio"] = (spec.action.ratio, share)
        fixed = {name: value for name, (value, _) in params.items()}
        return {
            "params": params,
            "user": {DIGEST: spec.digest, SPEC: spec.as_dict(), NAMES: dict(self.names)},
            "system": {"fixed_params": fixed},
        }


@dataclass(frozen=True)
class Claimed:
    """A run that a worker has taken.

    Attributes:
        study: Its study's id.
        trial: Its own in the storage.
        spec: What to run.
        folder: Where.
    """

    study: int
    trial: int
    spec: RunSpec
    folder: Path


class Store:
    """Where studies and their runs are kept, and how workers share them.

    Args:
        place: The file of a SQLite database, or a folder that holds a `study.db`; the URL of any
            database that SQLAlchemy knows (`postgresql+psycopg://...`); or `journal:PATH`, Optuna's
            journal, for a shared disk on which SQLite's locks do not work.
        folder: Of the runs; by default `runs` beside a file. Of a database elsewhere, needed once.
        make: Make the store where there is none.
        grace: Seconds of silence after which another worker takes up a run.

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
            raise StudyError(f"{file} is no store of studies: give the place of one")
        self.queue: Queue = _opened(self.place, file)
        self._given = None if folder is None else Path(folder).absolute()
        self._beside = None if file is None else file.absolute().parent / RUNS
        self._ids: dict[str, int] = {}

    @property
    def location(self) -> str:
        """The place for another process, whose working directory may be another."""
        file = file_of(self.place)
        if file is None:
            return self.place
        return f"{JOURNAL if self.place.startswith(JOURNAL) else ''}{file.absolute()}"

    @property
    def given(self) -> str | None:
        """The folder of the runs that this object was given."""
        return None if self._given is None else str(self._given)

    @property
    def studies(self) -> list[str]:
        """The names of the studies, in the order in which they were made."""
        return [each.study_name for each in self._frozen()]

    def folder_of(self, name: str) -> Path:
        """Return the folder of a study's runs.

        Raises:
            StudyError: Nobody ever said where it is.
        """
        kept = self._attrs(name).get(FOLDER)
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
        study = self._id(name, better)
        if self._given is not None or self._beside is None:
            if self._given is None and FOLDER not in self._attrs(name):
                raise StudyError("a database elsewhere needs a folder for the runs: give --folder")
            if self._given is not None:
                self.queue.storage.set_study_user_attr(study, FOLDER, str(self._given))
        digests = [each.spec.digest for each in runs]
        old = {key for key in self._attrs(name) if key.startswith(PLAN)}
        for place in range(0, max(len(digests), 1), PART):
            key = f"{PLAN}{place // PART:06d}"
            self.queue.storage.set_study_user_attr(study, key, digests[place : place + PART])
            old.discard(key)
        for key in old:
            self.queue.storage.set_study_user_attr(study, key, [])
        wanted = {each.spec.digest: each.trial() for each in runs}
        return self.queue.plan(study, wanted, again=again)

    def digests(self, name: str) -> list[str]:
        """Return the digests of a study's plan, in its order."""
        held = self._attrs(name)
        return [digest for key in sorted(held) if key.startswith(PLAN) for digest in held[key]]

    def claim(self, names: Sequence[str] | None = None) -> Claimed | None:
        """Take a run that waits; None where none does.

        Args:
            names: Of the studies; by default all.
        """
        found = self.queue.claim(self._of(names))
        if found is None:
            return None
        study, trial = found
        attrs = self.queue.storage.get_trial(trial).user_attrs
        spec = RunSpec.from_dict(attrs[SPEC])
        self.queue.storage.set_trial_user_attr(
            trial, WORKER, f"{socket.gethostname()}:{os.getpid()}"
        )
        name = self.queue.storage.get_study_name_from_id(study)
        return Claimed(study, trial, spec, self.folder_of(name) / spec.key)

    @contextmanager
    def held(self, claimed: Claimed) -> Iterator[None]:
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

    def finish(self, claimed: Claimed, row: Row) -> None:
        """Keep what came out. A run that another worker finished meanwhile stays as it is."""
        from optuna.trial import TrialState

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

        self._end(claimed.trial, {}, TrialState.WAITING, None)

    def revive(self, names: Sequence[str] | None = None) -> int:
        """Let runs wait again whose workers are dead, and return how many."""
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
        found = self.queue.entries(self._id(name), (DIGEST, *attrs))
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

    def _frozen(self) -> list[FrozenStudy]:
        found = self.queue.storage.get_all_studies()
        return [each for each in found if FORMAT in each.user_attrs]

    def _of(self, names: Sequence[str] | None) -> list[int]:
        if names is None:
            return [each._study_id for each in self._frozen()]
        return [self._id(name) for name in names]

    def _attrs(self, name: str) -> Json:
        return self.queue.storage.get_study_user_attrs(self._id(name))

    def _id(self, name: str, better: str | None = None) -> int:
        """Return a study's id; make it where it says which metric is better.

        Raises:
            StudyError: There is none of that name.
        """
        if name in self._ids:
            return self._ids[name]
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        storage = self.queue.storage
        if better is not None:
            way = StudyDirection.MAXIMIZE if better == "higher" else StudyDirection.MINIMIZE
            with suppress(DuplicatedStudyError):
                made = storage.create_new_study([way], name)
                storage.set_study_user_attr(made, FORMAT, 1)
        try:
            self._ids[name] = storage.get_study_id_from_name(name)
        except KeyError as error:
            there = ", ".join(self.studies) or "none"
            raise StudyError(
                f"{self.place} holds no study named '{name}': it holds {there}"
            ) from error
        if better is not None and FORMAT not in storage.get_study_user_attrs(self._ids[name]):
            storage.set_study_user_attr(self._ids[name], FORMAT, 1)
        return self._ids[name]


def file_of(place: str) -> Path | None:
    """Return the file of a store; None where it is a database elsewhere."""
    if place.startswith(JOURNAL):
        return Path(place.removeprefix(JOURNAL)).expanduser()
    if place.startswith("sqlite:///"):
        return Path(place.removeprefix("sqlite:///"))
    if re.match(r"[a-z][a-z0-9+]*://", place):
        return None
    path = Path(place).expanduser()
    return path / FILE if path.is_dir() or not path.suffix else path


def _opened(place: str, file: Path | None) -> Queue:
    """Open Optuna's storage.

    Raises:
        StudyError: It cannot be opened.
    """
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def open_it() -> Queue:
        if file is not None and place.startswith(JOURNAL):
            return JournalQueue(JournalStorage(JournalFileBackend(str(file))), file)
        sqlite = file is not None
        url = f"sqlite:///{file}" if sqlite else place
        arguments = {"timeout": WAIT, "isolation_level": None}
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),
            engine_kwargs={"connect_args": arguments} if sqlite else {"pool_pre_ping": True},
        )
        if sqlite:
            serialised(storage.engine)
        return RdbQueue(storage)

    try:
        if file is not None:
            with files.refusing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return steady(open_it)
    except TrainscopeError:
        raise
    except Exception as error:  # whatever a database, or its driver, raises
        where = re.sub(r"://[^/@]*@", "://...@", place)  # a password is not shown
        raise StudyError(f"the store {where} cannot be opened: {reason(error)}") from error
