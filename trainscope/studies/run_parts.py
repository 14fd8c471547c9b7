"""The values of a grid's axes that make one run, and the run that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainscope.errors import Field, StudyError
from trainscope.sparsify import Action
from trainscope.studies.entries import base_of
from trainscope.studies.grid import AxisValue, Base, RecipeAsked
from trainscope.studies.lines import Path
from trainscope.studies.results import Row
from trainscope.studies.spec import RunSpec
from trainscope.training.settings import Settings

if TYPE_CHECKING:
    from trainscope.studies.study import Study

OF_THE_STUDY = ("settings", "probes", "probe_epochs", "norms", "samples")
"""Fields of a run's spec that are no axis: the study says them once, under the same name."""


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

    def spec(self, study: Study, settings: Settings) -> RunSpec:
        """Return the run.

        Args:
            study: Which says what is no axis.
            settings: Of the training.

        Raises:
            TrainscopeError: They make none; its `field` is one of the spec.
        """
        start, training, data = self.base.value, self.recipe.value, self.data.value
        if isinstance(start, Base):
            start = base_of(start, settings, training, data, self.task.value)
        probes = tuple(study.probes)
        epochs = tuple(study.probe_epochs)
        if training is None:
            if not isinstance(start, RunSpec):
                said = "a checkpoint is retrained by a recipe: give recipes"
                raise StudyError(said, field=("base",))
            if self.action.value is not None:
                said = "a pruned network is retrained by a recipe: give recipes"
                raise StudyError(said, field=("action",))
            return replace(start, probes=probes, probe_epochs=epochs, norms=study.norms)
        if isinstance(start, RunSpec) and data is None:
            data = start.data
        return RunSpec(
            **_fields(training),
            base=start,
            action=self.action.value,
            weights=self.weights.value,
            data=data,
            task=self.task.value,
            settings=settings,
            probes=probes,
            probe_epochs=epochs,
            norms=study.norms,
            samples=study.samples,
            seed=self.seed.value,
        )


def _fields(training: RecipeAsked) -> Mapping[str, Any]:
    return {each.name: getattr(training, each.name) for each in fields(training)}
