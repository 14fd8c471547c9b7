"""The runs of a study's grid: every combination of the values of its axes, told or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError, TrainscopeError
from trainscope.probes import find
from trainscope.sparsify import Action
from trainscope.studies.entries import (
    base_of,
    data_of,
    refuse_setting,
    seed_of,
    task_of,
)
from trainscope.studies.grid import NONE, AxisValue, Base, RecipeAsked, as_action, points, tables
from trainscope.studies.lines import Path
from trainscope.studies.plain import made
from trainscope.studies.results import Row
from trainscope.studies.roots import Roots
from trainscope.studies.rows import columns_of
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
        places: Where its parts stand in the study: "base", "action", "recipe", "data", "task".
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
    settings = _settings(study)
    axes = _actions(study, [each.value for each in data])
    rest = (recipes, weights, data, task, seeds)
    _refuse_many(study, len(base) * len(axes or ()), rest)
    for each in base:
        actions = axes or _tried(study, settings, each, recipes[0], data[0], task[0])
        _refuse_many(study, len(actions), rest)
        for chosen in product(actions, *rest):
            yield _run(study, settings, each, *chosen)


def _settings(study: Study) -> Settings:
    given = study.settings
    if isinstance(given, Settings):
        return given
    for name in given:
        with study.at(("settings", name)):
            refuse_setting(name)
            made(Settings, {name: given[name]}, "settings")
    with study.at(("settings",)):
        return made(Settings, given, "settings")


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
    if study.tried is None:
        return [as_action(point, data, study.at) for point in raw]
    if len(raw) > 1 or raw[0].value not in (NONE, None):
        with study.at(("action",)):
            raise StudyError("an oracle tries actions of its own: leave action out, or oracle")
    if study.recipes is None:
        with study.at(("oracle",)):
            raise StudyError("what an oracle tries is retrained by a recipe: give recipes")
    return None


def _tried(
    study: Study,
    settings: Settings,
    base: AxisValue[Any],
    recipe: AxisValue[RecipeAsked | None],
    data: AxisValue[str | None],
    task: AxisValue[str | None],
) -> Actions:
    """Return what the study's oracle tries of a base, which is opened or built for that."""
    assert study.tried is not None
    with study.at(base.path):
        spec = _spec(
            *(study, settings, base.value, None, recipe.value),
            *("inherited", data.value, task.value, 0),
        )
        network = Roots().network(spec)
    try:
        found = study.tried.actions(network)
    except TrainscopeError as error:
        raise study.at.moved(error, study.inside("oracle", error)) from error
    return [AxisValue(action, ("oracle",), name) for name, action in found]


def _run(
    study: Study,
    settings: Settings,
    base: AxisValue[Any],
    action: AxisValue[Action | None],
    recipe: AxisValue[RecipeAsked | None],
    weights: AxisValue[str],
    data: AxisValue[str | None],
    task: AxisValue[str | None],
    seed: AxisValue[int],
) -> Crossing:
    """Return one run of the grid, or what is wrong with it."""
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
    places = {"base": base.path, "action": action.path, "recipe": recipe.path}
    places |= {"data": data.path, "task": task.path, "weights": weights.path}
    if isinstance(base.value, Base) and base.value.data is not None:
        places["data"] = (*base.path, "data")
    blame = recipe.path or base.path
    try:
        spec = _spec(
            *(study, settings, base.value, action.value, recipe.value),
            *(weights.value, data.value, task.value, seed.value),
        )
    except TrainscopeError as error:
        said = str(error)
        if said.startswith("a base") or "is no digest" in said:
            blame = base.path
        elif "weights '" in said or "kind of weights" in said:
            blame = weights.path
        elif "samples" in said:
            blame = ("samples",)
        elif "probe" in said:
            blame = ("probe_epochs",)
        elif "seed" in said:
            blame = seed.path
        return Crossing(error, names, places, blame, raw)
    return Crossing(spec, names, places, blame, columns_of(spec) | raw)


def _spec(
    study: Study,
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
        "probes": tuple(study.probes),
        "probe_epochs": tuple(study.probe_epochs),
        "norms": study.norms,
        "samples": study.samples,
        "seed": seed,
    }
    if training is None:
        if not isinstance(start, RunSpec):
            raise StudyError("a checkpoint is retrained by a recipe: give recipes")
        if action is not None:
            raise StudyError("a pruned network is retrained by a recipe: give recipes")
        return replace(
            start, probes=rest["probes"], probe_epochs=rest["probe_epochs"], norms=study.norms
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
