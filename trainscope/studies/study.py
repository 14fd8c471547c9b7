"""A study: a grid of runs, planned before anything runs, from a TOML file or from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from trainscope.errors import StudyError, TrainscopeError
from trainscope.probes import find
from trainscope.records.text import plain as plain_text
from trainscope.sparsify import Action
from trainscope.studies.entries import base_of, data_of, refuse_setting, seed_of, task_of
from trainscope.studies.executing import digest_of
from trainscope.studies.grid import (
    At,
    AxisValue,
    Base,
    RecipeAsked,
    as_action,
    blamed,
    points,
    tables,
)
from trainscope.studies.lines import lines_of
from trainscope.studies.named import name_of, parsed, place_of, read_toml
from trainscope.studies.plain import made
from trainscope.studies.results import Row
from trainscope.studies.rows import columns_of
from trainscope.studies.search import Search, Slot
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.studies.store import Planned, Store
from trainscope.studies.summary import PaperRow
from trainscope.studies.unknown import unknown
from trainscope.task import Classification, find_task
from trainscope.training.settings import Settings

MOST_RUNS = 1_000_000
"""A grid above this is a slip of the pen."""
AXES = ("base", "action", "recipes", "weights", "data", "task", "seeds")


@dataclass(frozen=True)
class Study:
    """A grid of runs: every base under every action, recipe, task, data and seed.

    Each axis is one value or a list of them. In a table a list in the place of a value is an axis
    too: `{"ratio": [0.5, 0.9], "criterion": ["l1", "random"]}` are four actions.

    Attributes:
        name: Of the study, in its store.
        base: Base models: tables with the fields of `grid.Base`, checkpoints, RunSpecs.
        action: Actions: tables with the fields of `Action`, Actions, or "none".
        recipes: Of retraining: texts, or tables with the fields of `grid.RecipeAsked`. Without any
            the bases themselves are trained.
        weights: As `RunSpec.weights`.
        data: As `--data` takes it; None takes what a checkpoint remembers.
        task: As `--task` takes it.
        seeds: Of the retraining.
        settings: Everything else about the training: Settings, or a table.
        probes: Measured before the first step.
        probe_epochs: After which epochs too.
        norms: Keep the gradient's norm at every step.
        samples: Pinned samples of the probes.
        search: How the first LR of the recipes is searched for: `search.Search`, or a table with
            its fields. Each run of the grid becomes as many runs as the search has trials.
        exclude: Tables of columns, as `results` has them: a run is left out that has all of the
            values of one (a list: any of its values).
        runs: Runs beside those of the grid, as RunSpecs or as the JSON of some.
        store: The place of the store, as `Store` takes it.
        folder: Of the runs, where the store is a database elsewhere.
        notes: What a reader should know; a report shows it.
        paper: Published numbers, for a report to show beside these: tables with the fields of
            `summary.PaperRow`.
        at: Says where in a file an error is.
    """

    name: str = ""
    base: Any = ()
    action: Any = "none"
    recipes: Any = None
    weights: Any = "inherited"
    data: Any = None
    task: Any = None
    seeds: Any = 0
    settings: Any = field(default_factory=dict)
    probes: Sequence[str] = ()
    probe_epochs: Sequence[int] = ()
    norms: bool = False
    samples: int = 256
    search: Search | Mapping[str, Any] | None = None
    exclude: Sequence[Mapping[str, Any]] = ()
    runs: Sequence[RunSpec | Mapping[str, Any]] = ()
    store: str | Path | None = None
    folder: str | Path | None = None
    notes: Sequence[str] = ()
    paper: Sequence[Mapping[str, Any]] = ()
    at: At = field(default_factory=At, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what needs no network.

        Raises:
            StudyError: There is no name, or nothing to run.
        """
        if not self.name or plain_text(self.name) != self.name or "/" in self.name:
            with self.at(("name",)):
                raise StudyError(f"a study has a name without '/', not '{plain_text(self.name)}'")
        if not self.runs and (self.base is None or self.base in ((), [])):
            raise self.at.moved(StudyError("the study has no base and no runs: name a base"), ())
        _ = self.published, self.searched

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """Read a study from a TOML file, whose keys are the attributes.

        Its store is `study.db` beside it, and its name that of the file, unless it says others.

        Raises:
            StudyError: It cannot be read; one sentence with the line.
        """
        path = Path(path)
        text, _ = read_toml(path)
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Study:
        """Read a study from TOML that stands, or would stand, in a file.

        Raises:
            StudyError: It cannot be read.
        """
        raw = parsed(text, path)
        at = At(str(path), lines_of(text))
        names = [each.name for each in fields(cls) if each.name != "at"]
        for name in raw:
            if name not in names:
                raise at.moved(StudyError(unknown(name, names, "key of a study")), (name,))
        for name, kind, item, words in _KINDS:
            if name in raw and type(raw[name]) is not kind:
                raise at.moved(StudyError(f"{name} is {words}, not {raw[name]!r}"), (name,))
            for place, part in enumerate(raw.get(name, ()) if item is not None else ()):
                if type(part) is not item:
                    wrong = StudyError(f"{name} is {words}, and {part!r} in it is none")
                    raise at.moved(wrong, (name, place))
        given = {**raw, "name": name_of(raw, path), "store": place_of(raw, path)}
        return cls(**given, at=at)

    def plan(self, tell: Callable[[str], None] | None = None) -> list[Planned]:
        """Return the runs, each digest once, in the order of the axes.

        Checkpoints are opened for the digests of their weights; nothing is trained.

        Args:
            tell: Told of what is opened.

        Raises:
            TrainscopeError: The grid is none, or a checkpoint cannot be opened.
        """
        used: set[int] = set()
        found: dict[str, Planned] = {}
        left_out = 0
        columns = set(_KNOWN_COLUMNS)
        digests: dict[BaseModel, str] = {}
        for spec, names, path in self._all(used, columns):
            if spec is None:
                left_out += 1
                continue
            for each in spec.files():
                if each not in digests:
                    if tell is not None:
                        tell(f"reading the weights of {each.path}")
                    with self.at(path):
                        digests[each] = digest_of(each, spec.data, spec.task)
            for slot in self._slots(spec, path):
                planned = Planned(spec.pinned(digests), names, slot)
                found.setdefault(planned.digest, planned)
        for place in range(len(self.exclude)):
            if place not in used:
                with self.at(("exclude", place)):
                    raise StudyError("this exclusion matches no run of the grid: correct it")
        for place, beside in enumerate(self.published):
            for name in beside.match if self.base not in (None, (), []) else ():
                if name not in columns:
                    with self.at(("paper", place, "match")):
                        raise StudyError(unknown(name, sorted(columns), "column of the runs"))
        if not found:
            raise self.at.moved(
                StudyError(f"all {left_out} runs of the grid are excluded, so there is none left"),
                ("exclude",),
            )
        return list(found.values())

    def _all(
        self, used: set[int], columns: set[str]
    ) -> Iterator[tuple[RunSpec | None, dict[str, str], Any]]:
        """Return every run with its names and the place that stands for it; None if excluded.

        The exclusions that are used, and the columns that runs have, are added to two sets.
        """
        if self.base not in (None, (), []):
            for spec, names, path, raw in self._grid():
                matching = {n for n, each in enumerate(self.exclude) if self._matches(n, each, raw)}
                used |= matching
                columns.update(raw)
                if matching:
                    yield None, names, path
                    continue
                if isinstance(spec, TrainscopeError):
                    raise self.at.moved(spec, path)
                yield spec, names, path
        for place, given in enumerate(self.runs):
            with self.at(("runs", place)):
                spec = given if isinstance(given, RunSpec) else RunSpec.from_dict(dict(given))
            yield spec, {}, ("runs", place)

    def _grid(self) -> Iterator[tuple[RunSpec | TrainscopeError, dict[str, str], Any, Row]]:
        data = points(self.data, "data", self.at, data_of)
        task = points(self.task, "task", self.at, task_of)
        seeds = points(self.seeds, "seeds", self.at, seed_of)
        weights = points(self.weights, "weights", self.at, str)
        base = tables(
            Base, self.base, "base", self.at, text="checkpoint", also=(RunSpec, BaseModel)
        )
        for each in base:
            if isinstance(each.value, Base):
                with self.at((*each.path, "data")):
                    data_of(each.value.data)
        raw_actions = tables(Action, self.action, "action", self.at, also=(str, type(None)))
        names = [point.value for point in data]
        actions = [as_action(point, names, self.at) for point in raw_actions]
        recipes: Sequence[AxisValue[RecipeAsked | None]] = [AxisValue(None)]
        if self.recipes is not None:
            recipes = tables(RecipeAsked, self.recipes, "recipes", self.at, text="recipe")
        for place, name in enumerate(self.probes):
            with self.at(("probes", place)):
                find(str(name))
        settings = self.settings
        if not isinstance(settings, Settings):
            for name in settings:
                with self.at(("settings", name)):
                    refuse_setting(name)
                    made(Settings, {name: settings[name]}, "settings")
            with self.at(("settings",)):
                settings = made(Settings, settings, "settings")
        axes = (base, actions, recipes, weights, data, task, seeds)
        count = 1
        for axis in axes:
            count *= len(axis)
        if count > MOST_RUNS:
            raise self.at.moved(StudyError(f"the grid has {count} runs, above {MOST_RUNS}"), ())
        for chosen in product(*axes):
            yield self._run(settings, *chosen)

    def _run(
        self,
        settings: Settings,
        base: AxisValue[Any],
        action: AxisValue[Action | None],
        recipe: AxisValue[RecipeAsked | None],
        weights: AxisValue[str],
        data: AxisValue[str | None],
        task: AxisValue[str | None],
        seed: AxisValue[int],
    ) -> tuple[RunSpec | TrainscopeError, dict[str, str], Any, Row]:
        """Return one run of the grid, or what is wrong with it, and its columns."""
        names = {k: p.name for k, p in (("base", base), ("action", action), ("recipe", recipe))}
        names = {key: name for key, name in names.items() if name}
        raw: Row = {
            "recipe": None if recipe.value is None else recipe.value.recipe,
            "weights": weights.value,
            "data": data.value,
            "task": task.value,
            "seed": seed.value,
            **{f"{key}.name": name for key, name in names.items()},
        }
        if action.value is not None:
            raw |= {f"action.{f.name}": getattr(action.value, f.name) for f in fields(Action)}
        spec: RunSpec | TrainscopeError
        places = {"recipe": recipe.path, "base": base.path, "action": action.path}
        blame = recipe.path or base.path
        try:
            spec = self._spec(
                settings, base.value, action.value, recipe.value, weights.value,
                data.value, task.value, seed.value,
            )  # fmt: skip
        except TrainscopeError as error:
            said = str(error)
            if "architecture is named" in said or said.startswith("a base"):
                blame = places["base"]
            elif "weights '" in said or "kind of weights" in said:
                blame = weights.path
            elif "samples" in said:
                blame = ("samples",)
            elif "probe" in said:
                blame = ("probe_epochs",)
            elif "seed" in said:
                blame = seed.path
            return error, names, blame, raw
        return spec, names, blame, columns_of(spec) | raw

    def _spec(
        self,
        settings: Settings,
        base: Any,
        action: Action | None,
        training: RecipeAsked | None,
        weights: str,
        data: str | None,
        task: str | None,
        seed: int,
    ) -> RunSpec:
        start = base
        if isinstance(base, Base):
            start = base_of(base, settings, training, data, task)
        rest: dict[str, Any] = {
            "data": data,
            "task": task,
            "settings": settings,
            "probes": tuple(self.probes),
            "probe_epochs": tuple(self.probe_epochs),
            "norms": self.norms,
            "samples": self.samples,
            "seed": seed,
        }
        if training is None:
            if not isinstance(start, RunSpec):
                raise StudyError("a checkpoint is retrained by a recipe: give recipes")
            if action is not None:
                raise StudyError("a pruned network is retrained by a recipe: give recipes")
            return replace(
                start, probes=rest["probes"], probe_epochs=rest["probe_epochs"], norms=self.norms
            )
        if isinstance(start, RunSpec) and data is None:
            rest["data"] = start.data
        return RunSpec(
            training.recipe,
            base=start,
            action=action,
            weights=weights,
            epochs=training.epochs,
            shape=training.shape,
            min_lr=training.min_lr,
            warmup=training.warmup,
            plan=training.plan,
            **rest,
        )

    def _matches(self, place: int, table: Mapping[str, Any], row: Row) -> bool:
        """Tell whether a run has all the values of an exclusion.

        Raises:
            StudyError: It names a column that runs do not have, or is empty.
        """
        if not table:
            with self.at(("exclude", place)):
                raise StudyError("an exclusion is empty, which would exclude every run")
        for name, wanted in table.items():
            known = {*row, *_KNOWN_COLUMNS}
            if name not in known:
                with self.at(("exclude", place, name)):
                    raise StudyError(unknown(name, sorted(known), "column of the runs"))
            values = wanted if isinstance(wanted, list | tuple) else [wanted]
            if row.get(name) not in values:
                return False
        return True

    def open_store(self, *, make: bool = True, **options: Any) -> Store:
        """Open the store of the study.

        Raises:
            StudyError: It names none, or it cannot be opened.
        """
        if self.store is None:
            raise StudyError("the study names no store: give store=, like store='study.db'")
        return Store(self.store, self.folder, make=make, **options)

    @cached_property
    def searched(self) -> Search | None:
        """The search.

        Raises:
            StudyError: It is none.
        """
        if self.search is None or isinstance(self.search, Search):
            return self.search
        try:
            return made(Search, self.search, "search")
        except TrainscopeError as error:
            places = {str(name): ("search", name) for name in self.search}
            raise self.at.moved(error, blamed(str(error), places, ("search",))) from error

    def _slots(self, spec: RunSpec, path: Any) -> list[Slot | None]:
        """Return the runs of a search that a run of the grid becomes; None where there is none.

        Raises:
            StudyError: Its LR cannot be searched for.
        """
        search = self.searched
        if search is None or (path and path[0] == "runs"):
            return [None]
        try:
            search.check(spec)
        except TrainscopeError as error:
            watched = str(error).startswith(("'", "watch", "no probe"))
            raise self.at.moved(error, ("search", "watch") if watched else path) from error
        return [Slot(search, place) for place in range(search.trials)]

    @cached_property
    def published(self) -> list[PaperRow]:
        """The published numbers.

        Raises:
            StudyError: One of them is none.
        """
        found = []
        for place, each in enumerate(self.paper):
            try:
                found.append(made(PaperRow, each, "paper"))
            except TrainscopeError as error:
                places = {str(name): ("paper", place, name) for name in each}
                raise self.at.moved(error, blamed(str(error), places, ("paper", place))) from error
        return found

    @property
    def better(self) -> str:
        """Which final metric is better, by the first task."""
        first = self.task[0] if isinstance(self.task, list | tuple) else self.task
        task = Classification() if first is None else find_task(first)
        return task.metric.better

    def run(self, engine: str = "serial", **options: Any) -> list[Row]:
        """Do what of the study is not done yet, and return the rows of all its runs.

        Args:
            engine: "serial" (here), "processes" or "ray".
            options: As `engines.run` takes them: workers, device, address, telling, again, grace.

        Raises:
            TrainscopeError: The study, its store or the engine is at fault. What fails in a run is
                kept in the store.
        """
        from trainscope.studies.engines import run
        from trainscope.studies.results import results

        store = run(self, engine, **options)
        try:
            return results(store, self.name)
        finally:
            store.close()


_KINDS: tuple[tuple[str, type, type | None, str], ...] = (
    ("name", str, None, "text"),
    ("norms", bool, None, "true or false"),
    ("samples", int, None, "a whole number"),
    ("probes", list, str, "a list of names"),
    ("probe_epochs", list, int, "a list of epochs"),
    ("exclude", list, dict, "a list of tables: write [[exclude]]"),
    ("search", dict, None, "a table: write [search]"),
    ("settings", dict, None, "a table: write [settings]"),
    ("runs", list, dict, "a list of tables"),
    ("store", str, None, "the place of a store"),
    ("folder", str, None, "a folder"),
    ("notes", list, str, "a list of sentences"),
    ("paper", list, dict, "a list of tables: write [[paper]]"),
)
"""What a key of a file holds, what is in it where it is a list, and both in words."""
_KNOWN_COLUMNS = ("base.name", "action.name", "recipe.name", "architecture")
