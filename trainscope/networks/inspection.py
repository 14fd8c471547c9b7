"""What is in a checkpoint file, told without running anything in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.checkpoint import open_contents
from trainscope.networks.described import PACKED, Described
from trainscope.networks.hub import local_folder
from trainscope.networks.masks import SUFFIX
from trainscope.networks.network import Network, Remembered
from trainscope.networks.readers import Contents, contents_of
from trainscope.networks.readers.tensors import bytes_of, word_of
from trainscope.networks.recognise import recognise
from trainscope.networks.state_dict import kind_of
from trainscope.networks.tensor_names import plain_names
from trainscope.networks.zeros import zeros_in
from trainscope.records import PrunedBefore

LARGE = 2**30
"""Tensors of more bytes than this in all are described by their shapes, and not read."""


@dataclass(frozen=True)
class TensorFacts:
    """One tensor of a file.

    Attributes:
        name: As the file has it.
        shape: Its shape.
        dtype: Its type, like "float32".
        zeros: The share of its elements that are zero; None where they were not read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    zeros: float | None


@dataclass(frozen=True)
class Inspection:
    """What a file holds.

    Attributes:
        path: The file or folder.
        size: Its bytes.
        format: The format of the file; None where it is of no known one.
        architecture: The network's architecture; None where it is not recognised.
        recognised: How that was found.
        num_classes: The width of its logits.
        parameters: The elements of all its tensors but masks and buffers of whole numbers.
        masks: How many tensors are masks.
        tensors: Every tensor.
        remembered: What training left in the file.
        classes: Classes and functions that loading it in full would run.
        notes: What a person should know, each one sentence.
        problem: Why it cannot be opened as a network, in a sentence; None where it can.
        before: What had been pruned in it: by masks, to zeros without masks, to narrower layers.
    """

    path: str
    size: int
    format: str | None
    architecture: str | None
    recognised: str | None
    num_classes: int | None
    parameters: int
    masks: int
    tensors: tuple[TensorFacts, ...]
    remembered: Remembered
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    problem: str | None
    before: tuple[PrunedBefore, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `trainscope.inspection/1` as a JSON object."""
        return {"schema": "trainscope.inspection/1"} | asdict(self)


def inspect_checkpoint(path: str | os.PathLike[str]) -> Inspection:
    """Describe a checkpoint; its classes are named and never loaded.

    Raises:
        CheckpointError: There is nothing to describe: the file is missing, damaged, or holds
            neither weights nor classes.
    """
    file = local_folder(path)
    classes: tuple[str, ...] = ()
    contents: Contents | None = None
    network: Network | None = None
    problem = None
    try:
        contents = contents_of(file)
        classes = contents.classes
        if _bytes(contents) <= LARGE:
            network = open_contents(contents)
    except CheckpointError as error:
        classes = getattr(error, "classes", classes)
        if contents is None and not classes:
            raise CheckpointError(f"{file}: {error}") from error
        problem = str(error)
    state = {} if contents is None else _tensors(contents.state_dict)
    read = contents is None or _bytes(contents) <= LARGE
    name, how, classes_told = _recognised(contents, network, read)
    return Inspection(
        path=str(file),
        size=_size(file),
        format=None if contents is None else contents.format,
        architecture=name,
        recognised=how,
        num_classes=classes_told,
        parameters=sum(prod(v.shape) for n, v in state.items() if _is_weight(n, v)),
        masks=sum(name.endswith((SUFFIX, ".0.mask")) for name in state),
        tensors=tuple(_facts(name, value, read) for name, value in state.items()),
        remembered=Remembered() if contents is None else contents.remembered,
        classes=classes,
        notes=_notes(contents, network),
        problem=problem,
        before=_before(state, network, read),
    )


def _notes(contents: Contents | None, network: Network | None) -> tuple[str, ...]:
    """Return what is said of the network, else of what was taken of a file that has none known."""
    if network is not None:
        return network.notes
    return () if contents is None else contents.notes


def _before(
    state: Mapping[str, Tensor | Described], network: Network | None, read: bool
) -> tuple[PrunedBefore, ...]:
    """Return what was pruned: as the network shows it, else as its tensors alone do."""
    if network is not None:
        return network.before
    built = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    masked = any(name.endswith((SUFFIX, ".0.mask")) for name in state)
    layers = zeros_in(built) if read and not masked else ()
    if not layers:
        return ()
    total = sum(value.numel() for value in built.values() if value.ndim > 1)
    return (PrunedBefore("zeros", "unstructured", layers, total),)


def _bytes(contents: Contents) -> int:
    return sum(bytes_of(value) for value in contents.state_dict.values())


def _recognised(
    contents: Contents | None, network: Network | None, read: bool
) -> tuple[str | None, str | None, int | None]:
    """Return the architecture, how it was found and its classes; by shapes if nothing is read."""
    if network is not None:
        return network.architecture, network.recognised, network.num_classes
    if contents is None or read:
        return None, None, None
    state = _tensors(contents.state_dict)
    names = plain_names(state)
    try:
        found = recognise({names[name]: tuple(value.shape) for name, value in state.items()}).fit
    except CheckpointError:
        return None, None, None
    return found.architecture.name, "by names and shapes", found.num_classes


def _tensors(state: Mapping[str, object]) -> dict[str, Tensor | Described]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor | Described)}


def _is_weight(name: str, value: Tensor | Described) -> bool:
    statistics = ("running_mean", "running_var", "n_averaged")
    masks = name.endswith((SUFFIX, ".0.mask"))
    if isinstance(value, Described):
        return True
    return value.is_floating_point() and not masks and name.rpartition(".")[2] not in statistics


def _facts(name: str, value: Tensor | Described, read: bool) -> TensorFacts:
    if isinstance(value, Described):
        share = value.count() if read and value.count is not None else None
        return TensorFacts(name, value.shape, value.dtype, share)
    counted = read and value.numel() and kind_of(value) != PACKED
    zeros = int((value == 0).sum()) / value.numel() if counted else None
    return TensorFacts(name, tuple(value.shape), word_of(value.dtype), zeros)


def _size(path: Path) -> int:
    try:
        files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
        return sum(each.stat().st_size for each in files)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
