"""The values of a grid's axes that make one run, and the run that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from trainscope.errors import Field, StudyError
from trainscope.sparsify import Action
from trainscope.studies.entries import base_of
from trainscope.studies.grid import AxisValue, Base, RecipeAsked
from trainscope.studies.lines import Path
from trainscope.studies.results import Row
from trainscope.studies.spec import RunSpec
from trainscope.training.settings import Settings


@dataclass(frozen=True)
class Shared:
    """What is no axis: fields of every run's spec that the study says once, under the same names.

    Attributes:
        settings: As `RunSpec.settings`.
        probes: As `RunSpec.probes`, like the others.
        probe_epochs: See there.
        norms: See there.
        samples: See there.
    """

    settings: Settings
    probes: tuple[str, ...]
    probe_epochs: tuple[int, ...]
    norms: bool
    samples: int


OF_THE_STUDY = tuple(each.name for each in fields(Shared))


@dataclass(frozen=True)
class RunParts:
    """One value of every axis.

    Attributes:
        base: A `grid.Base`, or a RunSpec or BaseModel as it stands.
        action: None for a network as it is.
        recipe: None where the base itself is trained.
        weights: As `RunSpec.weights`.
        data: As `RunSpec.data`.
        task: As `RunSpec.task`.
        seed: As `RunSpec.seed`.
    """

    base: AxisValue[Any]
    action: AxisValue[Action | None]
    recipe: AxisValue[RecipeAsked | None]
    weights: AxisValue[str]
    data: AxisValue[str | None]
    task: AxisValue[str | None]
    seed: AxisValue[int]

    @property
    def names(self) -> dict[str, str]:
        """What the study calls its base, action and recipe, where it calls them anything."""
        named = {"base": self.base, "action": self.action, "recipe": self.recipe}
        return {key: value.name for key, value in named.items() if value.name}

    @cached_property
    def places(self) -> dict[str, Path]:
        """Where each stands in the study; data are those of the base, where it has its own."""
        places = {each.name: getattr(self, each.name).path for each in fields(self)}
        if isinstance(self.base.value, Base) and self.base.value.data is not None:
            places["data"] = (*self.base.path, "data")
        return places

    @property
    def training(self) -> Path:
        """Where the study says how the run is trained."""
        return self.recipe.path or self.base.path

    @property
    def columns(self) -> Row:
        """What they are, as the columns of a run that need not be one."""
        found: Row = {
            "recipe": None if self.recipe.value is None else self.recipe.value.recipe,
            "weights": self.weights.value,
            "data": self.data.value,
            "task": self.task.value,
            "seed": self.seed.value,
            **{f"{key}.name": name for key, name in self.names.items()},
        }
        action = self.action.value
        if action is not None:
            found |= {f"action.{f.name}": getattr(action, f.name) for f in fields(Action)}
        return found

    def place_of(self, field: Field) -> Path:
        """Return where in the study a field of the run's spec is said."""
        if not field:
            return self.training
        name, *inner = field
        if name in OF_THE_STUDY:
            return field
        if name != "recipe" and name in self.places:
            return (*self.places[str(name)], *inner)
        return (*self.training, *field)

    def spec(self, shared: Shared) -> RunSpec:
        """Return the run.

        Args:
            shared: What is no axis.

        Raises:
            TrainscopeError: They make none; its `field` is one of the spec.
        """
        start, training, data = self.base.value, self.recipe.value, self.data.value
        if isinstance(start, Base):
            start = base_of(start, shared.settings, training, data, self.task.value)
        if training is None:
            if not isinstance(start, RunSpec):
                said = "a checkpoint is retrained by a recipe: give recipes"
                raise StudyError(said, field=("base",))
            if self.action.value is not None:
                said = "a pruned network is retrained by a recipe: give recipes"
                raise StudyError(said, field=("action",))
            return replace(
                start, probes=shared.probes, probe_epochs=shared.probe_epochs, norms=shared.norms
            )
        if isinstance(start, RunSpec) and data is None:
            data = start.data
        return RunSpec(
            **_fields(training),
            **_fields(shared),
            base=start,
            action=self.action.value,
            weights=self.weights.value,
            data=data,
            task=self.task.value,
            seed=self.seed.value,
        )


def _fields(record: RecipeAsked | Shared) -> Mapping[str, Any]:
    return {each.name: getattr(record, each.name) for each in fields(record)}
