"""What the entries of a study's axes are: data and tasks by name, seeds, base models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainscope.data import is_factory, load
from trainscope.data.torchvision_sets import KNOWN
from trainscope.errors import StudyError, about
from trainscope.studies.grid import Base, RecipeAsked
from trainscope.studies.plain import from_plain, plain
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.task import find_task
from trainscope.training.recipe import parse_recipe
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings


def data_of(value: Any) -> str | None:
    """Return the name of data, which need not be here."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise StudyError(f"data is a text like digits or mnist:ROOT, not {value!r}")
    kind, colon, rest = value.partition(":")
    here = colon and rest and kind in (*KNOWN, "imagefolder", "random", "text")
    if not here and not is_factory(value):
        load(value, (1,))  # says which names there are
    return value


def task_of(value: Any) -> str | None:
    """Return the name of a task."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise StudyError(f"a task is a name like classification, not {value!r}")
    find_task(value)
    return value


def refuse_setting(name: str) -> None:
    """Refuse a setting that has an axis of its own."""
    if name == "seed":
        raise StudyError("the seed of a training is no setting of a study: give seeds")


def seed_of(value: Any) -> int:
    """Return a seed."""
    if type(value) is not int:
        raise StudyError(f"a seed is a whole number, not {value!r}")
    return value


def base_of(
    base: Base,
    settings: Settings,
    training: RecipeAsked | None,
    data: str | None,
    task: str | None,
) -> RunSpec | BaseModel:
    """Return a base model for a run of the grid.

    Raises:
        TrainscopeError: It is none; `field` says what of the run's spec is at fault.
    """
    if base.checkpoint is not None:
        with about("base", "checkpoint"):
            return _checkpoint(base, base.checkpoint)
    if base.data is None and data is None:
        said = "a base with an architecture is trained on data: name it, data = 'digits'"
        raise StudyError(said, field=("base",))
    recipe, epochs = base.recipe, base.epochs
    if recipe is None:
        schedule = _pretraining(base, training)
        recipe, epochs = str(schedule), schedule.total
    with about("base"):
        with about("settings"):
            own = from_plain(Settings, {**_given(settings), **base.settings}, "base.settings")
        return RunSpec(
            recipe,
            data=base.data if base.data is not None else data,
            architecture=base.architecture,
            epochs=epochs,
            shape=base.shape,
            min_lr=base.min_lr,
            warmup=base.warmup,
            settings=own,
            task=task,
            seed=base.seed,
        )


def _checkpoint(base: Base, named: str) -> BaseModel:
    digest = named.removeprefix("sha256:")
    if digest != named:
        return BaseModel(digest=digest, arch=base.arch, model=base.model)
    return BaseModel(str(Path(named).expanduser().absolute()), arch=base.arch, model=base.model)


def _pretraining(base: Base, training: RecipeAsked | None) -> LRSchedule:
    """Return the pretraining that the recipe of a run cuts off."""
    with about("recipe"):
        read = parse_recipe(training.recipe) if training is not None else None
    if read is None or read.pretrain is None:
        raise StudyError(
            "a base with an architecture needs a recipe of its own, like F60,1e-1, where the "
            "recipe of the run does not begin with its pretraining, like P60F60,1e-2",
            field=("base",),
        )
    with about("base", "lr"):
        return read.pretraining(base.lr)


def _given(settings: Settings) -> dict[str, Any]:
    return {k: v for k, v in plain(settings).items() if k not in ("lora", "seed")}
