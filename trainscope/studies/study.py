"""A study: a grid of runs, planned before anything runs, from a TOML file or from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, TypeVar

from trainscope.errors import StudyError, TrainscopeError
from trainscope.records.text import plain as plain_text
from trainscope.studies.crossing import KNOWN_COLUMNS, Crossing, crossed
from trainscope.studies.executing import digest_of
from trainscope.studies.lines import At, lines_of
from trainscope.studies.named import name_of, parsed, place_of, read_toml
from trainscope.studies.oracle_axis import OracleActions
from trainscope.studies.plain import from_plain
from trainscope.studies.planned import Planned
from trainscope.studies.rehearsal import check_folder, check_names, rehearse
from trainscope.studies.results import Row
from trainscope.studies.roots import root_key
from trainscope.studies.search import Search, Slot
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.studies.store import Store
from trainscope.studies.summary import PaperRow
from trainscope.studies.unknown import unknown
from trainscope.task import Classification, find_task

Kind = TypeVar("Kind")
PARTS = ("base", "action", "recipe", "weights", "data", "task")
"""Of a run, which stand somewhere in a study."""


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
        oracle: In the place of actions, combinations of filters that are tried:
            `oracle_axis.OracleActions`, or a table with its fields.
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
    oracle: OracleActions | Mapping[str, Any] | None = None
    exclude: Sequence[Mapping[str, Any]] = ()
    runs: Sequence[RunSpec | Mapping[str, Any]] = ()
    store: str | FilePath | None = None
    folder: str | FilePath | None = None
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
        _ = self.published, self.lr_search, self.oracle_actions

    @classmethod
    def read(cls, path: str | FilePath) -> Study:
        """Read a study from a TOML file, whose keys are the attributes.

        Its store is `study.db` beside it, and its name that of the file, unless it says others.

        Raises:
            StudyError: It cannot be read; one sentence with the line.
        """
        path = FilePath(path)
        text, _ = read_toml(path)
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: FilePath) -> Study:
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
        columns = set(KNOWN_COLUMNS)
        digests: dict[BaseModel, str] = {}
        named: set[tuple[str | None, ...]] = set()
        for each in self._all():
            columns.update(each.columns or ())
            matching = {n for n, table in enumerate(self.exclude) if each.has(self, n, table)}
            used |= matching
            left_out += bool(matching)
            if matching:
                continue
            spec = each.spec
            if isinstance(spec, TrainscopeError):
                raise self.at.moved(spec, each.blame)
            key = (root_key(spec), spec.data, spec.weights)
            if key not in named:
                check_names(spec, each.places, self.at)
                named.add(key)
            for file in spec.files():
                if file not in digests:
                    if tell is not None:
                        tell(f"reading the weights of {file.path}")
                    with self.at((*(each.places.get("base") or each.blame), "checkpoint")):
                        digests[file] = digest_of(file, spec.data, spec.task)
            for slot in self._slots(spec, each.blame):
                planned = Planned(spec.pinned(digests), each.names, slot, each.places)
                found.setdefault(planned.digest, planned)
        self._check_used(used, columns)
        if not found:
            raise self.at.moved(
                StudyError(f"all {left_out} runs of the grid are excluded, so there is none left"),
                ("exclude",),
            )
        return list(found.values())

    def _all(self) -> Iterator[Crossing]:
        """Yield the runs of the grid, and those beside it."""
        if self.base not in (None, (), []):
            yield from crossed(self)
        for place, given in enumerate(self.runs):
            path = ("runs", place)
            with self.at(path):
                spec = given if isinstance(given, RunSpec) else RunSpec.from_dict(dict(given))
            yield Crossing(spec, {}, dict.fromkeys(PARTS, path), path, None)

    def _check_used(self, used: set[int], columns: set[str]) -> None:
        """Refuse exclusions that exclude nothing, and published numbers of no run."""
        for place in range(len(self.exclude)):
            if place not in used:
                with self.at(("exclude", place)):
                    raise StudyError("this exclusion matches no run of the grid: correct it")
        for place, beside in enumerate(self.published):
            for name in beside.match if self.base not in (None, (), []) else ():
                if name not in columns:
                    with self.at(("paper", place, "match")):
                        raise StudyError(unknown(name, sorted(columns), "column of the runs"))

    def open_store(self, *, make: bool = True, **options: Any) -> Store:
        """Open the store of the study.

        Raises:
            StudyError: It names none, or it cannot be opened.
        """
        if self.store is None:
            raise StudyError("the study names no store: give store=, like store='study.db'")
        with self.at(("store",)):
            return Store(self.store, self.folder, make=make, **options)

    def rehearse(
        self, plan: Sequence[Planned], store: Store, tell: Callable[[str], None] | None = None
    ) -> None:
        """Try what the runs of a plan that are not done yet would find only when they run.

        Args:
            plan: The runs.
            store: In which some may be done.
            tell: Told of what is tried.

        Raises:
            StudyError: Data is not here, a network does not take it, an action can be done on none
                of its bases, or nothing can be written; one sentence with the line.
        """
        done = store.done(self.name)
        left = [planned for planned in plan if planned.digest not in done]
        if left:
            folder = store.folder_of(self.name)
            check_folder(folder, self.at)
            rehearse(left, self.at, folder, tell or (lambda _: None))

    @cached_property
    def lr_search(self) -> Search | None:
        """The search.

        Raises:
            StudyError: It is none.
        """
        return self._table(Search, self.search, "search")

    @cached_property
    def oracle_actions(self) -> OracleActions | None:
        """What an oracle tries.

        Raises:
            StudyError: It is nothing.
        """
        return self._table(OracleActions, self.oracle, "oracle")

    def _table(
        self, kind: type[Kind], given: Kind | Mapping[str, Any] | None, key: str
    ) -> Kind | None:
        if given is None or isinstance(given, kind):
            return given
        assert isinstance(given, Mapping)
        with self.at((key,)):
            return from_plain(kind, given, key)

    def _slots(self, spec: RunSpec, path: Any) -> list[Slot | None]:
        """Return the runs of a search that a run of the grid becomes; None where there is none.

        Raises:
            StudyError: Its LR cannot be searched for.
        """
        search = self.lr_search
        if search is None or (path and path[0] == "runs"):
            return [None]
        try:
            search.check(spec)
        except TrainscopeError as error:
            of_search = ("search", *error.field) if error.field else path
            raise self.at.moved(error, of_search) from error
        return [Slot(search, place) for place in range(search.trials)]

    @cached_property
    def published(self) -> list[PaperRow]:
        """The published numbers.

        Raises:
            StudyError: One of them is none.
        """
        found = []
        for place, each in enumerate(self.paper):
            with self.at(("paper", place)):
                found.append(from_plain(PaperRow, each, "paper"))
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
    ("oracle", dict, None, "a table: write [oracle]"),
    ("settings", dict, None, "a table: write [settings]"),
    ("runs", list, dict, "a list of tables"),
    ("store", str, None, "the place of a store"),
    ("folder", str, None, "a folder"),
    ("notes", list, str, "a list of sentences"),
    ("paper", list, dict, "a list of tables: write [[paper]]"),
)
"""What a key of a file holds, what is in it where it is a list, and both in words."""
