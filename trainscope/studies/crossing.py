"""The runs of a study's grid: every combination of the values of its axes, told or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError, TrainscopeError
from trainscope.probes import find
from trainscope.sparsify import Action
from trainscope.studies.entries import data_of, refuse_setting, seed_of, task_of
from trainscope.studies.grid import NONE, AxisValue, Base, RecipeAsked, as_action, points, tables
from trainscope.studies.lines import Path
from trainscope.studies.plain import from_plain
from trainscope.studies.results import Row
from trainscope.studies.roots import Roots
from trainscope.studies.rows import columns_of
from trainscope.studies.run_parts import RunParts, Shared
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.studies.unknown import unknown
from trainscope.training.settings import Settings

if TYPE_CHECKING:
    from trainscope.studies.study import Study

MOST_RUNS = 1_000_000
"""A grid above this is a slip of the pen."""
KNOWN_COLUMNS = ("base.name", "action.name", "recipe.name", "architecture")
Actions = Sequence[AxisValue[Action | None]]


@dataclass(frozen=True)
class Crossing:
    """One combination of the values of the axes.

    Attributes:
        spec: The run, or what is wrong with it.
        names: What the study calls its parts.
        places: Where its parts stand in the study, by the fields of `RunParts`.
        blame: Where what is wrong with it stands.
        columns: Its columns, as results have them; None of a run beside the grid, which nothing
            excludes.
    """

    spec: RunSpec | TrainscopeError
    names: Mapping[str, str]
    places: Mapping[str, Path]
    blame: Path
    columns: Row | None

    def has(self, study: Study, place: int, table: Mapping[str, Any]) -> bool:
        """Tell whether it has all the values of one of the study's exclusions.

        Raises:
            StudyError: The exclusion names a column that runs do not have, or is empty.
        """
        if self.columns is None:
            return False
        if not table:
            with study.at(("exclude", place)):
                raise StudyError("an exclusion is empty, which would exclude every run")
        for name, wanted in table.items():
            if isinstance(wanted, Mapping):
                inside = next(iter(wanted), "ratio")
                with study.at(("exclude", place, name)):
                    raise StudyError(
                        f"an exclusion has columns with their values, and '{name}' is a table in "
                        f'it: write a dotted name in quotes, like "{name}.{inside}" = ...'
                    )
            known = {*self.columns, *KNOWN_COLUMNS}
            if name not in known:
                with study.at(("exclude", place, name)):
                    raise StudyError(unknown(name, sorted(known), "column of the runs"))
            values = wanted if isinstance(wanted, list | tuple) else [wanted]
            if self.columns.get(name) not in values:
                return False
        return True


def crossed(study: Study) -> Iterator[Crossing]:
    """Yield the runs of a study's grid in the order of its axes.

    Raises:
        StudyError: An axis is none; one sentence with the line.
    """
    at = study.at
    data = points(study.data, "data", at, data_of)
    task = points(study.task, "task", at, task_of)
    seeds = points(study.seeds, "seeds", at, seed_of)
    weights = points(study.weights, "weights", at, str)
    base = tables(Base, study.base, "base", at, text="checkpoint", also=(RunSpec, BaseModel))
    for each in base:
        if isinstance(each.value, Base):
            with at((*each.path, "data")):
                data_of(each.value.data)
    recipes: Sequence[AxisValue[RecipeAsked | None]] = [AxisValue(None)]
    if study.recipes is not None:
        recipes = tables(RecipeAsked, study.recipes, "recipes", at, text="recipe")
    for place, name in enumerate(study.probes):
        with at(("probes", place)):
            find(str(name))
    shared = Shared(
        _settings(study),
        tuple(study.probes),
        tuple(study.probe_epochs),
        study.norms,
        study.samples,
    )
    named = _actions(study, [each.value for each in data])
    rest = (recipes, weights, data, task, seeds)
    _refuse_many(study, len(base) * len(named or ()), rest)
    dense: AxisValue[Action | None] = AxisValue(None)
    inherited = AxisValue("inherited")
    for each in base:
        actions = named or _tried(
            study,
            shared,
            RunParts(each, dense, recipes[0], inherited, data[0], task[0], AxisValue(0)),
        )
        _refuse_many(study, len(actions), rest)
        for chosen in product(actions, *rest):
            yield _run(shared, RunParts(each, *chosen))


def _settings(study: Study) -> Settings:
    given = study.settings
    if isinstance(given, Settings):
        return given
    for name in given:
        with study.at(("settings", name)):
            refuse_setting(name)
    with study.at(("settings",)):
        return from_plain(Settings, given, "settings")


def _refuse_many(study: Study, count: int, axes: Sequence[Sequence[Any]]) -> None:
    for axis in axes:
        count *= len(axis)
    if count > MOST_RUNS:
        raise study.at.moved(StudyError(_many(count)), ())


def _many(count: int) -> str:
    return f"the grid has {count:,} runs, above {MOST_RUNS:,}: take values out of its lists"


def _actions(study: Study, data: Sequence[str | None]) -> Actions | None:
    """Return the actions that a study names; None where an oracle names them of each base."""
    also = (str, type(None))
    raw: list[AxisValue[Any]] = [*tables(Action, study.action, "action", study.at, also=also)]
    if study.oracle_actions is None:
        return [as_action(point, data, study.at) for point in raw]
    if len(raw) > 1 or raw[0].value not in (NONE, None):
        with study.at(("action",)):
            raise StudyError("an oracle tries actions of its own: leave action out, or oracle")
    if study.recipes is None:
        with study.at(("oracle",)):
            raise StudyError("what an oracle tries is retrained by a recipe: give recipes")
    return None


def _tried(study: Study, shared: Shared, parts: RunParts) -> Actions:
    """Return what the study's oracle tries of a base, which is opened or built for that."""
    assert study.oracle_actions is not None
    try:
        spec = parts.spec(shared)
    except TrainscopeError as error:
        raise study.at.moved(error, parts.place_of(error.field)) from error
    with study.at(parts.base.path):
        network = Roots().network(spec)
    with study.at(("oracle",)):
        named = study.oracle_actions.actions(network)
    return [AxisValue(action, ("oracle",), name) for name, action in named]


def _run(shared: Shared, parts: RunParts) -> Crossing:
    """Return one run of the grid, or what is wrong with it."""
    names, places, columns = parts.names, parts.places, parts.columns
    try:
        spec = parts.spec(shared)
    except TrainscopeError as error:
        return Crossing(error, names, places, parts.place_of(error.field), columns)
    return Crossing(spec, names, places, parts.training, columns_of(spec) | columns)
