"""What a run would find only when it runs, tried before: its names, data, network and action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath

from trainscope.data import Dataset, is_factory
from trainscope.errors import DataError, NotFetchedError, StudyError, TrainscopeError
from trainscope.foreign import find_callable
from trainscope.networks import Network
from trainscope.networks.copies import whole_copy
from trainscope.networks.registry import architecture
from trainscope.records import Kind, files
from trainscope.sparsify import Action, sparsify
from trainscope.studies.executing import dataset_of, found_beside, opened_base
from trainscope.studies.lines import At, Path
from trainscope.studies.planned import Planned
from trainscope.studies.roots import root_key, root_of
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.training.job import check_fit
from trainscope.training.jobs import run_beside, training_job
from trainscope.training.lora import add_adapters

FEW = 16
"""Samples of which a criterion is told when an action is only tried."""
Places = Mapping[str, Path]


def check_names(spec: RunSpec, places: Places, at: At) -> None:
    """Refuse a run whose network or data is of a name that does not exist, or of code not there.

    Raises:
        StudyError: One sentence with the line.
    """
    root, base = root_of(spec), places.get("base", ())
    if isinstance(root.base, BaseModel):
        if root.base.model is not None:
            with at((*base, "model")):
                find_callable(root.base.model, "model", StudyError)
        if spec.weights == "winning-ticket" and spec.base is root.base:
            with at(places.get("weights", ())):
                raise StudyError(
                    "a winning ticket is rewound to the weights before training, which a "
                    "checkpoint does not have: give a base with an architecture and a recipe"
                )
    else:
        with at((*base, "architecture")):
            if ":" in str(root.architecture):
                find_callable(str(root.architecture), "architecture", StudyError)
            else:
                architecture(str(root.architecture), "architecture =")
    for each in {root.data, spec.data} - {None}:
        if is_factory(str(each)):
            with at(places.get("data", ())):
                find_callable(str(each), "data", StudyError)


def check_folder(folder: FilePath, at: At) -> None:
    """Refuse a folder for the runs into which nothing can be written.

    Raises:
        StudyError: It is.
    """
    with at(("folder",)):
        try:
            files.try_folder(folder)
        except TrainscopeError as error:
            raise StudyError(f"the runs cannot be written: {error}") from error


def rehearse(
    plan: Sequence[Planned],
    at: At,
    beside: FilePath,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Open the data and the networks of some runs, put one into the other, and try every action.

    Nothing is trained: networks that a run would train before it prunes them are random here. An
    action that can be done on some of its bases is none that is wrong: the others are said when
    their runs run.

    Args:
        plan: The runs.
        at: Says where in the study an error is.
        beside: The folder of the runs, in which a base may be that is named by its weights.
        tell: Told of what is tried.

    Raises:
        StudyError: What the first run that cannot be done is told, with the line.
    """
    opened: dict[tuple[str, str | None, str | None], tuple[Network, Dataset]] = {}
    tried: dict[tuple[object, ...], TrainscopeError | None] = {}
    first: dict[str, Path] = {}
    for planned in plan:
        spec, places = planned.spec, planned.places
        key = (root_key(spec), spec.data, spec.task)
        if key not in opened:
            tell(f"trying {root_of(spec).architecture or 'the checkpoint'} on {spec.data}")
            opened[key] = _opened(spec, places, at, beside)
        network, dataset = opened[key]
        action = spec.action
        if action is None:
            continue
        asked = f"{ ({n: len(kept) for n, kept in action.kept.items()} or action)!r}"
        first.setdefault(asked, places.get("action", ()))
        if (asked, key) not in tried:
            tried[asked, key] = _refused(action, network, dataset)
    for asked, path in first.items():
        said = [error for (each, _), error in tried.items() if each == asked]
        wrong = next((error for error in said if error is not None), None)
        if wrong is not None and all(said):
            raise at.moved(wrong, (*path, *(wrong.field or _only_field(path, at))))


def _only_field(path: Path, at: At) -> Path:
    """Return the one field that a table of the study has; () where it has others beside."""
    fields = [each for each in at.lines if each[:-1] == path]
    return fields[0][-1:] if len(fields) == 1 else ()


def _opened(spec: RunSpec, places: Places, at: At, beside: FilePath) -> tuple[Network, Dataset]:
    """Open or build a network and its data, and put one into the other."""
    root = root_of(spec)
    if isinstance(root.base, BaseModel):
        with at((*places.get("base", ()), "checkpoint")):
            base = root.base if root.base.path is not None else found_beside(root.base, beside)
        with at(places.get("data", ()) if spec.data is not None else places.get("base", ())):
            network, dataset = opened_base(base, spec.data, spec.task)
        with at(places.get("weights", ())):
            _check_budget(spec, str(base.path), network)
    else:
        with at(places.get("data", ())):
            try:
                dataset = dataset_of(root if spec.data is None else replace(root, data=spec.data))
            except NotFetchedError as error:  # a study fetches nothing
                raise DataError(error.without_offer) from error
        with at((*places.get("base", ()), "architecture")):
            name = str(root.architecture)
            network = training_job(name, dataset, root.schedule, root.trained_with).network
    with at((*places.get("base", ()), "architecture")):
        check_fit(network, dataset)
    if dataset.train is None:
        with at(places.get("data", ())):
            raise StudyError(f"{dataset.name} has no training half, which a study trains on")
    if spec.settings.lora is not None:
        with at(("settings", "lora")):
            add_adapters(whole_copy(network.module), spec.settings.lora)
    return network, dataset


def _check_budget(spec: RunSpec, path: str, network: Network) -> None:
    if spec.kind not in (Kind.SCRATCH_E, Kind.SCRATCH_B) or not isinstance(spec.base, BaseModel):
        return
    if run_beside(FilePath(path), network) is None and network.remembered.epochs is None:
        raise StudyError(
            f"nothing says how long {path} was trained, so there is no budget for training from "
            "scratch: give a base with an architecture and a recipe"
        )


def _refused(action: Action, network: Network, dataset: Dataset) -> TrainscopeError | None:
    """Return why an action cannot be done; None where it can."""
    few = replace(action, criterion_samples=min(FEW, action.criterion_samples))
    try:
        sparsify(network.module, few, network.inputs, data=dataset)
    except TrainscopeError as error:
        return error
    return None
