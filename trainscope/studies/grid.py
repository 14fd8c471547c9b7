"""The axes of a grid: values that a study lists, each with its name and its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path as FilePath
from types import UnionType
from typing import Any, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trainscope.errors import StudyError, TrainscopeError
from trainscope.sparsify import Action
from trainscope.studies.lines import At, Path
from trainscope.studies.plain import from_plain
from trainscope.studies.unknown import unknown

Value = TypeVar("Value")
NONE = "none"
"""Written for an action that is left out."""
WEIGHT = "weight"
"""The one statistic that a criterion takes from the network alone."""


@dataclass(frozen=True)
class AxisValue(Generic[Value]):
    """One value of an axis.

    Attributes:
        value: It.
        path: Where it stands in the study.
        name: What the study calls it; "" for nothing.
    """

    value: Value
    path: Path = ()
    name: str = ""


@dataclass(frozen=True)
class RecipeAsked:
    """How a network is trained, as a study says it: the fields of a RunSpec that make a schedule.

    Attributes:
        recipe: As `RunSpec.recipe`.
        epochs: Of stages.
        shape: As `RunSpec.shape`.
        min_lr: As `RunSpec.min_lr`.
        warmup: As `RunSpec.warmup`.
        plan: As `RunSpec.plan`.
    """

    recipe: str
    epochs: int | None = None
    shape: str = "halving"
    min_lr: float | None = None
    warmup: int = 0
    plan: str | None = None


@dataclass(frozen=True)
class Base:
    """A base model as a study says it: a checkpoint, or how to pretrain an architecture.

    Attributes:
        checkpoint: The file; or the digest of weights that a run of the store ended with.
        arch: The architecture of the file, where it is not recognised.
        model: Or its factory.
        architecture: What to pretrain.
        recipe: Of the pretraining; by default what the recipes of the runs say that cut it off.
        epochs: As `RecipeAsked` has it, like the next three.
        shape: See there.
        min_lr: See there.
        warmup: See there.
        lr: The first learning rate of a pretraining whose recipe is that of the runs.
        data: What it is trained on; by default the data of the runs.
        settings: By default those of the runs.
        seed: Of the pretraining.
    """

    checkpoint: str | None = None
    arch: str | None = None
    model: str | None = None
    architecture: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    shape: str = "halving"
    min_lr: float | None = None
    warmup: int = 0
    lr: float = 1e-1
    data: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no base model.

        Raises:
            StudyError: It has no weights, or two kinds of them.
        """
        if (self.checkpoint is None) == (self.architecture is None):
            raise StudyError("a base has a checkpoint, or an architecture to pretrain: give one")
        if self.seed < 0:
            raise StudyError(f"the seed {self.seed} is below 0", field=("seed",))


def points(raw: Any, key: str, at: At, read: Callable[[Any], Value]) -> list[AxisValue[Value]]:
    """Return the values of an axis that is one value or a list of them.

    Args:
        raw: As the study has it.
        key: Its name there.
        at: Says where an error is.
        read: Checks one value and returns it as it is used.
    """
    values = []
    many = isinstance(raw, list | tuple | range)
    for place, value in enumerate(raw if many else [raw]):
        path: Path = (key, place) if many else (key,)
        with at(path):
            values.append(AxisValue(read(value), path))
    if not values:
        with at((key,)):
            raise StudyError(f"{key} is an empty list, so that the study has no runs")
    return values


def tables(
    kind: type[Value],
    raw: Any,
    key: str,
    at: At,
    text: str | None = None,
    also: tuple[type, ...] = (),
) -> list[AxisValue[Value]]:
    """Return the values of an axis of tables, in which a list stands for a value is an axis too.

    Args:
        kind: What a table becomes.
        raw: Tables, one or a list; values of the kind, of which nothing is asked; or texts.
        key: The axis, like "action".
        at: As `points`.
        text: The field that a text alone says.
        also: Kinds of values that stand as they are, beside the kind.
    """
    values: list[AxisValue[Value]] = []
    many = isinstance(raw, list | tuple)
    for place, value in enumerate(raw if many else [raw]):
        path: Path = (key, place) if many else (key,)
        if isinstance(value, str | FilePath) and text is not None:
            value = {text: str(value)}
        if not isinstance(value, Mapping):
            if not isinstance(value, (kind, *also)):
                with at(path):
                    raise StudyError(f"{key} holds tables{' or texts' * bool(text)}, not {value!r}")
            values.append(AxisValue(cast("Value", value), path))
            continue
        for table, places in _spread(kind, value, key, path, at):
            name = table.pop("name", "")
            try:
                thing = from_plain(kind, table, key)
            except TrainscopeError as error:
                raise at.moved(error, _place(error, places, path)) from error
            values.append(AxisValue(thing, path, str(name)))
    if not values:
        with at((key,)):
            raise StudyError(f"{key} is an empty list, so that the study has no runs")
    _refuse_twins(values, key, at)
    return values


def _spread(
    kind: type[Any], table: Mapping[str, Any], key: str, path: Path, at: At
) -> Iterator[tuple[dict[str, Any], dict[str, Path]]]:
    """Return the tables that one stands for in which fields have lists of values.

    With each the place of every value.
    """
    hints = get_type_hints(kind) | {"name": str}
    axes: dict[str, list[tuple[Any, Path]]] = {}
    for name, value in table.items():
        where = (*path, name)
        with at(where):
            if name not in hints:
                raise StudyError(unknown(name, list(hints), f"key of {key}"))
            if value == [] and not _holds_lists(hints[name]):
                raise StudyError(f"{key}.{name} is an empty list, so that the study has no runs")
        listed = isinstance(value, list) and not _holds_lists(hints[name])
        axes[name] = (
            [(part, (*where, n)) for n, part in enumerate(value)] if listed else [(value, where)]
        )
    for chosen in product(*axes.values()):
        yield (
            {name: value for name, (value, _) in zip(axes, chosen, strict=True)},
            {name: place for name, (_, place) in zip(axes, chosen, strict=True)},
        )


def _holds_lists(hint: Any) -> bool:
    """Tell whether a field of this type takes a list itself."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return any(get_origin(option) in (list, tuple) for option in options)


def _place(error: TrainscopeError, places: Mapping[str, Path], path: Path) -> Path:
    """Return where the field stands that an error is about; the table where it is of none.

    Args:
        error: What is wrong with a table.
        places: Of its fields, by name.
        path: Of the table.
    """
    if not error.field or error.field[0] not in places:
        return path
    name, *inner = error.field
    return (*places[str(name)], *inner)


def _refuse_twins(values: Sequence[AxisValue[Any]], key: str, at: At) -> None:
    seen: dict[str, Path] = {}
    for point in values:
        if point.name and point.name in seen and seen[point.name] != point.path:
            with at(point.path):
                raise StudyError(f"two entries of {key} are named '{point.name}': rename one")
        seen.setdefault(point.name, point.path)


def as_action(
    point: AxisValue[Any], data: Sequence[str | None], at: At
) -> AxisValue[Action | None]:
    """Return an action, None for the text "none", and check that its criterion can be asked.

    Raises:
        StudyError: It is none, or its criterion needs data and there is none.
    """
    if point.value == NONE or point.value is None:
        return AxisValue(None, point.path, point.name or NONE)
    if not isinstance(point.value, Action):
        with at(point.path):
            raise StudyError(f"an action is a table or '{NONE}', not {point.value!r}")
    wanted = sorted({str(each) for each in point.value.needs} - {WEIGHT})
    bare = [name for name in data if name is None or name.startswith("random:")]
    if wanted and bare:
        with at((*point.path, "criterion")):
            raise StudyError(
                f"the criterion {point.value.criterion_name} needs data (for "
                f"{', '.join(wanted)}), and {bare[0] or 'no data'} is what the study gives: name "
                "labelled data"
            )
    return point
