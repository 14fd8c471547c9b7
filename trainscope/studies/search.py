"""The retraining LR as what is searched for: Optuna's samplers choose it, its pruners stop runs.

A run of the grid becomes so many runs, whose LR is chosen when a worker takes one: by what those
before it came to. From then on it is a run like any other, named by its digest. What the sampler
and the pruner are told are the runs of one search alone, not those of other actions or seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError, about
from trainscope.probes import find
from trainscope.probes.scalar_spec import described
from trainscope.records import Json
from trainscope.records.metric import LOWER
from trainscope.studies.plain import KEY, from_plain, plain
from trainscope.studies.queues import SEARCH, SPEC
from trainscope.studies.spec import RunSpec
from trainscope.studies.unknown import unknown
from trainscope.training.recipe import Recipe
from trainscope.training.schedule import MAX_LR, write_lr
from trainscope.training.state import State

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SAMPLERS, PRUNERS = ("tpe", "random"), ("none", "median", "hyperband")
METRIC = "metric"
STARTUP = 5
"""Runs that are drawn at random before TPE has something to go by, and that no median stops."""
MOST_TRIALS = 10_000
LR, CHOSEN, RUNG = "lr", "chosen", "completed_rung_"
STOPPED = "stopped"
"""The status of a run that a pruner ended."""


@dataclass(frozen=True)
class Search:
    """How the first LR of retraining is searched for.

    Attributes:
        lr: The smallest and the largest LR; between them it is chosen on a logarithmic scale.
        trials: Runs of each search. The first has the LR of the recipe, if that lies between.
        sampler: "tpe" or "random".
        pruner: Stops runs that do badly beside others after as many epochs: "median", "hyperband",
            or "none".
        watch: What the pruner is told of: "metric", the test metric after every epoch, or a number
            of a probe as "gradient.norm", which is measured after `probe_epochs`.
        seed: Of the sampler.
    """

    lr: tuple[float, float]
    trials: int = 20
    sampler: str = "tpe"
    pruner: str = "none"
    watch: str = METRIC
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no search.

        Raises:
            StudyError: A field is out of range.
        """
        if len(self.lr) != 2 or not 0 < self.lr[0] < self.lr[-1] <= MAX_LR:
            given = ", ".join(f"{each:g}" for each in self.lr)
            raise StudyError(
                f"lr is the smallest and the largest LR, like [1e-4, 1e-1], not [{given}]",
                field=("lr",),
            )
        if not 1 <= self.trials <= MOST_TRIALS:
            said = f"trials are from 1 to {MOST_TRIALS}, not {self.trials}"
            raise StudyError(said, field=("trials",))
        if self.sampler not in SAMPLERS:
            raise StudyError(unknown(self.sampler, SAMPLERS, "sampler"), field=("sampler",))
        if self.pruner not in PRUNERS:
            raise StudyError(unknown(self.pruner, PRUNERS, "pruner"), field=("pruner",))
        if self.seed < 0:
            raise StudyError(f"the seed {self.seed} is below 0", field=("seed",))

    def check(self, spec: RunSpec) -> None:
        """Refuse a run whose LR cannot be searched for, or whose watched number is not measured.

        Raises:
            StudyError: It is one; without a field where it is the run that does not fit.
        """
        if spec.read is None or spec.shape == "rewind":
            raise StudyError(
                f"a search chooses the first LR of a recipe like F60,1e-2, and the LRs of "
                f"'{spec.recipe}' {'are all written' if spec.read is None else 'are rewound'}"
            )
        if self.watch != METRIC:
            with about("watch"):
                self._check_watched(spec)

    def _check_watched(self, spec: RunSpec) -> None:
        probe, _, name = self.watch.partition(".")
        if probe not in spec.probes or not spec.probe_epochs:
            raise StudyError(
                f"'{self.watch}' is watched, so name {probe} in probes, and probe_epochs"
            )
        find(probe)  # refuses what is none
        if _better(self.watch) == "":
            names = [each.name for each in described(probe).scalars if each.better]
            raise StudyError(
                f"watch names '{name}', of which neither direction is better: choose from "
                f"metric, {', '.join(f'{probe}.{each}' for each in names) or 'other probes'}"
            )


@dataclass(frozen=True)
class Slot:
    """One run of a search, before its LR is chosen.

    Attributes:
        search: The search.
        place: Which of its runs, from 0.
    """

    search: Search
    place: int

    def digest(self, template: RunSpec) -> str:
        """Return what names it in the plan."""
        return _digest(f"{self._of(template)} {self.place}")

    def attrs(self, template: RunSpec) -> Json:
        """Return what its trial keeps of it."""
        return {**plain(self.search), "place": self.place, "of": self._of(template)}

    def _of(self, template: RunSpec) -> str:
        """Return what names the search; the number of its runs does not, as it may grow."""
        asked = plain(self.search, without=("trials",))
        return _digest(f"{template.digest} {sorted(asked.items())}")[:KEY]


class Searched:
    """One run of a search, in the hands of a worker.

    Args:
        storage: Optuna's.
        study: The study's id there.
        trial: Its own.
        kept: What `Slot.attrs` returned.
        template: The run, with the LR of the recipe.
    """

    def __init__(
        self, storage: BaseStorage, study: int, trial: int, kept: Json, template: RunSpec
    ) -> None:
        asked = dict(kept)
        self.place, self.of = int(asked.pop("place")), str(asked.pop("of"))
        self.lr: float | None = asked.pop(CHOSEN, None)
        self.search = from_plain(Search, asked, "search")
        self.storage, self.study, self.trial, self.kept = storage, study, trial, kept
        self.template = template
        self.stopped: int | None = None

    def spec(self) -> RunSpec:
        """Return the run with its LR, which is chosen once."""
        if self.lr is None:
            self.lr = self._chosen()
            self.storage.set_trial_user_attr(self.trial, SEARCH, {**self.kept, CHOSEN: self.lr})
        spec = with_lr(self.template, self.lr)
        self.storage.set_trial_user_attr(self.trial, SPEC, spec.as_dict())
        self.storage.set_trial_param(self.trial, LR, self.lr, self._range())
        self.template = spec
        return spec

    def look(self, state: State) -> None:
        """Tell of an epoch, and stop the run where the pruner says so.

        Raises:
            KeyboardInterrupt: It does; the epochs done are kept.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        value = self._value(state)
        if value is None:
            return
        with suppress(UpdateFinishedTrialError):  # another worker was faster
            self.storage.set_trial_intermediate_value(self.trial, state.epoch, value)
            if state.epoch < self.template.schedule.total and self._is_bad():
                self.stopped = state.epoch
                raise KeyboardInterrupt

    def _is_bad(self) -> bool:
        """Tell whether the pruner stops the run."""
        pruner = self._pruner()
        if pruner is None:
            return False
        beside = self._beside()
        study = self._study(beside)
        own = next(
            mine
            for mine, each in zip(study.trials, beside, strict=True)
            if each._trial_id == self.trial
        )
        bad = pruner.prune(study, own)
        for name, rung in study.trials[own.number].system_attrs.items():  # Hyperband goes by them
            self.storage.set_trial_system_attr(self.trial, name, rung)
        return bad

    def row(self, row: Json) -> Json:
        """Return a run's row with the search in it; a run that was stopped has no final metric."""
        slot = _digest(f"{self.of} {self.place}")
        row = row | {"search.of": self.of, "search.place": self.place, "search.slot": slot}
        if self.stopped is not None:
            row |= {"status": STOPPED, "final": None, "best": None, "stopped": self.stopped}
        return row

    def _chosen(self) -> float:
        low, high = self.search.lr
        read = self.template.read
        if self.place == 0 and read is not None and low <= read.lr <= high:
            return read.lr
        study = self._study([each for each in self._beside() if LR in each.params])
        found = study.ask({LR: self._range()}).params[LR]
        return min(max(float(f"{found:.2e}"), low), high)  # what a person can read

    def _range(self) -> Any:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.search.lr, log=True)

    def _beside(self) -> list[FrozenTrial]:
        """Return the trials of the search by their places."""
        found = {}
        for each in self.storage.get_all_trials(self.study, deepcopy=False):
            kept = each.user_attrs.get(SEARCH, {})
            if kept.get("of") == self.of:
                found[int(kept["place"])] = each  # the last, where one was queued anew
        return [found[place] for place in sorted(found)]

    def _study(self, trials: Sequence[FrozenTrial]) -> OptunaStudy:
        """Return a study of Optuna's with these trials alone."""
        import optuna
        from optuna.trial import TrialState, create_trial

        text = f"{self.of} {self.search.seed} {self.place}"
        seed = int(_digest(text)[:8], 16)
        samplers = optuna.samplers
        sampler = (
            samplers.RandomSampler(seed=seed)
            if self.search.sampler == "random"
            else samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
        )
        (way,) = self.storage.get_study_directions(self.study)
        study = optuna.create_study(study_name=self.of, sampler=sampler, direction=way)
        for each in trials:
            state = TrialState.RUNNING if each.state is TrialState.WAITING else each.state
            if state is TrialState.COMPLETE and each.value is None:
                state = TrialState.PRUNED
            study.add_trial(
                create_trial(
                    state=state,
                    value=each.value if state is TrialState.COMPLETE else None,
                    params={LR: each.params[LR]} if LR in each.params else {},
                    distributions={LR: self._range()} if LR in each.params else {},
                    intermediate_values=dict(each.intermediate_values),
                    system_attrs=_rungs(each),
                )
            )
        return study

    def _pruner(self) -> BasePruner | None:
        from optuna import pruners

        if self.search.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=STARTUP)
        if self.search.pruner == "hyperband":
            return pruners.HyperbandPruner(max_resource=self.template.schedule.total)
        return None

    def _value(self, state: State) -> float | None:
        """Return the watched number after an epoch, better where the final metric's way is."""
        if self.search.watch == METRIC:
            return state.records[-1].test_metric if state.records else None
        probe, _, name = self.search.watch.partition(".")
        for taken in reversed(state.measurements):
            if taken.measurement.probe == probe and taken.epoch == state.epoch:
                scalar = taken.measurement.scalars.get(name)
                if scalar is None or scalar.value is None:
                    return None
                same = (_better(self.search.watch) == LOWER) == (state.metric.better == LOWER)
                return scalar.value if same else -scalar.value
        return None


def with_lr(spec: RunSpec, lr: float) -> RunSpec:
    """Return a run whose recipe begins with another LR."""
    read = spec.read
    assert read is not None
    return replace(spec, recipe=_text(read, lr))


def _text(recipe: Recipe, lr: float) -> str:
    before = "" if recipe.pretrain is None else f"P{recipe.pretrain}{'/' * recipe.squeezed}"
    extra = f"(+{recipe.extra})" if recipe.extra else ""
    return f"{before}F{recipe.retrain},{write_lr(lr)}{extra}"


def _rungs(trial: FrozenTrial) -> Json:
    """Return what Hyperband keeps of a trial."""
    return {name: value for name, value in trial.system_attrs.items() if name.startswith(RUNG)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _better(watch: str) -> str:
    """Return which direction of a probe's number is better; "" for neither, or no such number."""
    probe, _, name = watch.partition(".")
    specs = described(probe).scalars
    return next((each.better for each in specs if fnmatchcase(name, each.name)), "")
