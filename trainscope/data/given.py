"""Data that a person brings: a DataLoader, any iterable of batches, or a pair of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from trainscope.data.dataset import Dataset
from trainscope.data.halves import MemorySplit, half_of
from trainscope.errors import DataError, TaskError
from trainscope.task import Classification, LanguageModelling, Task
from trainscope.task.batches import described, plain
from trainscope.task.task import is_ragged, sample_shape

MOST_LOOKED_INTO = 2
"""Entries of data whose arrays are made tensors at once: one batch, or two; others are read."""

_TWO_HALVES = (
    "A tuple of two batches was given and read as the training half, {train} samples, and the test "
    "half, {test}: give a list of them if both are batches of one half."
)
_TWO_BATCHES = (
    "A list of two batches was given and read as one half of {test} samples, without a training "
    "half: give a tuple (train, test) if they are that."
)

_TRAIN, _TEST = ("train", "training"), ("test", "val", "valid", "validation", "eval")
_UNNAMED = "the data given"
Given = Iterable[Any] | TorchDataset[Any] | tuple[Any, Any]
"""A loader, a map-style data set or an iterable of batches; or two of them, train and test."""


def given_data(data: Given, name: str | None = None, task: Task | None = None) -> Dataset:
    """Return data that a person brings as a Dataset.

    Args:
        data: A `DataLoader`, a map-style data set, or an iterable of batches; or a pair of them,
            train and test, which may be a tuple of two batches, or a dictionary of loaders; or one
            batch: a dictionary of tensors, or a pair of tensors, inputs [N, ...] and labels [N] (a
            list of two tensors of token ids is two batches where the task is language modelling).
            A loader over a map-style data set is read by index, so its transforms stay random; of
            anything else up to `MOST_BYTES` are read once and kept.
        name: What it is called; by default after the class of its data set.
        task: What its batches are for; by default classification.

    Raises:
        DataError: It is none of these, or is empty.
    """
    name, task = name or _name(data), task or Classification()
    data, said = _halves(_as_tensors(data), name)
    if isinstance(data, Mapping) or _is_listed(data, task):
        data = [data]
    parts: Any = data if isinstance(data, tuple | list) and len(data) == 2 else None
    batches = parts is not None and all(_is_batch(each, task) for each in parts)
    if batches and isinstance(parts, tuple):
        data = parts = ([parts[0]], [parts[1]])
    if parts is not None and not _is_batch(parts[0], task):
        if isinstance(parts[0], Tensor):
            tokens = isinstance(parts, list) and type(task) is LanguageModelling
            train, test = None, half_of(parts if tokens else [tuple(parts)], name, task)
        else:
            train = half_of(parts[0], f"{name} (train)", task)
            test = half_of(parts[1], f"{name} (test)", task)
    else:
        train, test = None, half_of(data, name, task)
    for half, what in ((train, "train"), (test, "test")):
        if half is not None and not len(half):
            raise DataError(f"the {what} half of {name} has no samples; give at least two")
    shape = sample_shape(task, test.batch(torch.arange(min(2, len(test)))))
    cut = [half for half in (train, test) if isinstance(half, MemorySplit) and half.cut]
    notes = tuple(
        f"Of {half.where} the first {half.cut} were read, since they can be gone through only "
        "once; give a DataLoader over a map-style data set to use all of it."
        for half in cut
    )
    notes += said
    if batches:
        form = _TWO_HALVES if train is not None else _TWO_BATCHES
        notes += (form.format(train=len(train or test), test=len(test)),)
    entries = getattr(test, "entries", 0)
    return Dataset(name, train, test, None, shape, notes=notes, task=task, entries=entries)


def _as_tensors(data: Any) -> Any:
    """Return data with the arrays in it as tensors, and one tensor alone as one batch."""
    if isinstance(data, np.ndarray):
        data = torch.as_tensor(data)
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, Mapping):
        found = {key: _array(each) for key, each in data.items()}
        return found if any(isinstance(each, np.ndarray) for each in data.values()) else data
    if type(data) in (tuple, list) and len(data) <= MOST_LOOKED_INTO:
        return type(data)(map(_array, data))
    return data


def _array(given: Any) -> Any:
    if isinstance(given, np.ndarray):
        return torch.as_tensor(given)
    if type(given) in (tuple, list) and any(isinstance(each, np.ndarray) for each in given):
        return type(given)(map(_array, given))
    return given


def _halves(data: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """Return a pair of halves that stand in a dictionary by their names, and what to say of it.

    Raises:
        DataError: The halves have other names, or there are more than two of them.
    """
    parts = list(data.values() if isinstance(data, Mapping) else ())
    if isinstance(data, tuple | list) and len(data) > 2:
        parts = list(data)
    if not parts or not all(isinstance(each, DataLoader | TorchDataset) for each in parts):
        return data, ()
    if not isinstance(data, Mapping):
        raise DataError(
            f"{name} holds {len(parts)} loaders or data sets: give a pair, train and test"
        )
    known = {str(key).lower(): key for key in data}
    train = next((known[key] for key in _TRAIN if key in known), None)
    test = next((known[key] for key in _TEST if key in known), None)
    if test is None:
        raise DataError(
            f"{name} is {described(data)}, none of them called test or val: give a pair, train and "
            "test"
        )
    taken = [key for key in (train, test) if key is not None]
    note = f"Of {', '.join(map(repr, data))} these were taken: {', '.join(map(repr, taken))}."
    said = (note,) if len(taken) < len(data) else ()
    return (data[test] if train is None else (data[train], data[test])), said


def _name(data: Any) -> str:
    """Name data after the class of its data set, through loaders, subsets and pairs."""
    if isinstance(data, tuple | list):
        return _name(data[0]) if data and not isinstance(data[0], tuple | list) else _UNNAMED
    while isinstance(data, DataLoader | Subset):
        data = data.dataset
    return type(data).__name__ if isinstance(data, TorchDataset) else _UNNAMED


def _is_batch(first: object, task: Task) -> bool:
    """Say whether the first of two things is itself a batch, so that the two are batches."""
    if is_ragged(task):
        return _is_listed(first, task)
    if isinstance(first, Mapping):
        return any(isinstance(value, Tensor) for value in first.values())
    return isinstance(first, tuple | list) and len(first) >= 2 and isinstance(first[0], Tensor)


def _is_listed(data: object, task: Task) -> bool:
    """Say whether data is one batch of a task whose samples are entries of lists."""
    if not is_ragged(task) or not isinstance(data, tuple | list) or len(data) != 2:
        return False
    try:
        return task.size(plain(data)) > 0
    except TaskError:
        return False
