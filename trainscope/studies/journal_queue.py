"""A queue of runs in Optuna's journal, a file on a disk that all workers share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainscope.records import Json, files
from trainscope.studies.processes import is_gone
from trainscope.studies.queues import (
    BEAT,
    DIGEST,
    PROCESS,
    STATUS,
    Changed,
    StoredStudy,
    compared,
    one_more_died,
)
from trainscope.studies.tables import Entry


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

    def studies(self) -> list[StoredStudy]:
        """Read them from the journal as it was replayed."""
        return [
            StoredStudy(each._study_id, each.study_name, dict(each.user_attrs))
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
                    one_more_died(self.storage, entry.trial)
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
