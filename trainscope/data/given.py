"""Data that a person brings: a DataLoader, any iterable of batches, or a pair of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)
from torch.utils.data import Dataset as TorchDataset

from trainscope.data.dataset import Dataset
from trainscope.data.split import Augment, Split
from trainscope.errors import DataError, TaskError
from trainscope.foreign import reason
from trainscope.task import Batch, Classification, LanguageModelling, Task
from trainscope.task.batches import described, joined, mapped, plain, targets, tensors
from trainscope.task.classification import IGNORED
from trainscope.task.task import is_ragged, sample_shape

MOST_LOOKED_INTO = 2
"""Entries of data whose arrays are made tensors at once: one batch, or two; others are read."""
MOST_BYTES = 2 * 2**30
"""Of an iterable that cannot be read by index, so much is read and kept in memory."""

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


@dataclass(frozen=True)
class MemorySplit:
    """Batches that were read once and are kept, as they came.

    Attributes:
        samples: All of them as one batch.
        task: What they are for.
        where: What the data is called.
        cut: There was more than was read.
        augment: None: what was random in them is fixed by now.
        entries: Of a batch as it came, where it is a tuple.
    """

    samples: Batch
    task: Task
    where: str = ""
    cut: bool = False
    augment: Augment | None = None
    entries: int = 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.task.size(self.samples)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at indices."""
        return self.task.select(self.samples, indices)


@dataclass(frozen=True)
class IndexedSplit:
    """A map-style data set, read by index through its loader's own collate function.

    Attributes:
        samples: The data set.
        places: The indices that its loader draws from.
        collate: Makes a batch of a list of samples.
        where: What the data is called in an error.
        task: What its batches are for.
        augment: None: transforms are the data set's own.
    """

    samples: Any
    places: Tensor
    collate: Any
    where: str
    task: Task
    augment: Augment | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.places)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at indices.

        Transforms that draw at random are seeded by the indices, so one order of samples gives one
        augmentation, whatever else was drawn before; the random states are put back.

        Raises:
            DataError: A sample cannot be read, or a batch does not fit the task.
        """
        return taken_batch(self._collated(indices), self.where, self.task)

    @property
    def entries(self) -> int:
        """The entries of a batch as it comes, where it is a tuple."""
        return _entries(self._collated(torch.arange(min(2, len(self)))))

    def _collated(self, indices: Tensor) -> object:
        chosen = self.places[indices.cpu()].tolist()
        with _seeded(zlib.crc32(np.asarray(chosen, dtype=np.int64).tobytes())):
            try:
                return self.collate([self.samples[place] for place in chosen])
            except Exception as error:  # whatever the data set's own code raises
                raise DataError(f"{self.where} cannot be read: {reason(error)}") from error


def _entries(batch: object) -> int:
    found = plain(batch)
    return len(found) if isinstance(found, tuple) else 0


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
            train, test = None, _split(parts if tokens else [tuple(parts)], name, task)
        else:
            halves = (f"{name} (train)", f"{name} (test)")
            train, test = _split(parts[0], halves[0], task), _split(parts[1], halves[1], task)
    else:
        train, test = None, _split(data, name, task)
    for half, what in ((train, "train"), (test, "test")):
        if half is not None and not len(half):
            raise DataError(f"the {what} half of {name} has no samples; give at least two")
    shape = sample_shape(task, test.batch(torch.arange(min(2, len(test)))))
    cut = [half.where for half in (train, test) if isinstance(half, MemorySplit) and half.cut]
    notes = tuple(
        f"Of {where} the first {MOST_BYTES / 2**30:.3g} GiB were read, since they can be gone "
        "through only once; give a DataLoader over a map-style data set to use all of it."
        for where in cut
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


def taken_batch(batch: object, where: str, task: Task) -> Batch:
    """Return a batch in plain tuples and dictionaries, checked where the task's form is known.

    Raises:
        DataError: It is no batch of the task.
    """
    found = plain(batch)
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    if _packed(found):
        raise DataError(
            f"a batch of {where} holds a packed sequence, whose first axis is no axis of samples: "
            "give padded sequences with their lengths, and let the network pack them"
        )
    if not tensors(found):
        raise DataError(
            f"a batch of {where} is {described(batch)}, without a tensor: give tensors, or tuples "
            "or dictionaries of them"
        )
    if type(task) is not Classification or task.inputs is not None:
        return found
    if isinstance(found, Mapping):
        if targets(found) is None:
            raise DataError(
                f"a batch of {where} is {described(found)}, without labels: name them 'labels', or "
                "give the task (task=, --task)"
            )
        return found
    return _classified(found, where)


def _packed(batch: Batch) -> bool:
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, PackedSequence):
        return True
    return isinstance(batch, Mapping | tuple) and any(map(_packed, parts))


def _classified(batch: Batch, where: str) -> Batch:
    """Return a batch of inputs [N, ...] and labels [N] (int64), and what else is in it.

    Raises:
        DataError: It is no such batch.
    """
    shape = "batches must be pairs (inputs [N, ...], labels [N])"
    if not isinstance(batch, tuple) or len(batch) < 2:
        raise DataError(
            f"a batch of {where} is {described(batch)}: {shape}, or dictionaries with 'labels'"
        )
    inputs, labels = batch[0], batch[1]
    if not isinstance(inputs, Tensor | Mapping | tuple):
        raise DataError(f"the inputs of {where} are {described(inputs)}: {shape}")
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return batch
    if len(batch) > 2 and (labels.is_floating_point() or labels.ndim != 1):
        return batch  # several inputs: the task looks
    labels = _indices(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    whole = not labels.is_floating_point() and not labels.is_complex()
    if not labels.ndim and whole:
        raise DataError(
            f"{where} holds single samples in the place of batches: give a DataLoader of it with a "
            "batch_size"
        )
    if not labels.ndim or len(labels) != len(inputs) or not whole:
        raise DataError(
            f"the labels of {where} are of shape {tuple(labels.shape)} and {labels.dtype} for "
            f"{len(inputs)} inputs: give one class index a sample, or the task (task=, --task); of "
            "labels that are probabilities, loss=torch.nn.CrossEntropyLoss()"
        )
    if labels.numel() and int(labels.min()) < 0 and bool((labels < 0).ne(labels == IGNORED).any()):
        raise DataError(f"{where} has a label {int(labels.min())}: classes are counted from 0")
    return inputs, labels.long()


def _indices(labels: Tensor) -> Tensor:
    """Return one-hot labels as indices, and others as they are."""
    if not labels.is_floating_point() or labels.ndim != 2 or labels.shape[1] < 2:
        return labels
    hot = bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all())
    return labels.argmax(1) if hot else labels


def _split(data: Any, where: str, task: Task) -> Split:
    """Return one half, by index where that can be."""
    if isinstance(data, DataLoader):
        places = _places(data)
        if places is not None:
            return IndexedSplit(data.dataset, places, data.collate_fn, where, task)
    elif _holds_samples(data, task):
        collate = getattr(task, "collate", default_collate)
        return IndexedSplit(data, torch.arange(len(data)), collate, where, task)
    elif isinstance(data, TorchDataset) and hasattr(data, "__getitem__"):
        if not hasattr(data, "__len__"):
            raise DataError(f"{where} has no length: give a DataLoader of it")
        collate = getattr(task, "collate", default_collate)
        return IndexedSplit(data, torch.arange(len(data)), collate, where, task)
    return _read(data, where, task)


def _holds_samples(data: Any, task: Task) -> bool:
    """Tell whether data is a list of single samples, or an object like a data set of torch's.

    That is seen by the first label, which is one number, where a batch has one a sample.
    """
    if isinstance(data, TorchDataset | Mapping | Tensor) or type(task) is not Classification:
        return False
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or not len(data):
        return False
    try:
        first = plain(data[0])
    except Exception:  # whatever its own code raises: it is read in order, and that is said
        return False
    label = targets(first, task.inputs)
    return isinstance(label, int) or (isinstance(label, Tensor) and label.ndim == 0)


def _places(loader: DataLoader[Any]) -> Tensor | None:
    """Return the indices that a loader draws from, each once; None where that is not known."""
    sampler = loader.sampler
    if loader.batch_size is None or not hasattr(loader.dataset, "__getitem__"):
        return None
    if isinstance(sampler, SubsetRandomSampler):
        return torch.as_tensor(list(sampler.indices))
    if isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement
    ):
        return torch.arange(len(sampler.data_source))  # of which there may be fewer than samples
    return None


def _read(data: Any, where: str, task: Task) -> MemorySplit:
    """Read batches once, up to `MOST_BYTES`."""
    try:
        batches = iter(data)
    except TypeError as error:
        raise DataError(
            f"{where} is a {type(data).__name__}, which cannot be gone through: give a DataLoader "
            "or any iterable of batches"
        ) from error
    kept: list[Batch] = []
    held, cut, entries = 0, False, 0
    for batch in _told(batches, where):
        entries = entries or _entries(batch)
        some = mapped(lambda leaf: leaf.detach().cpu(), taken_batch(batch, where, task))
        kept.append(some)
        held += sum(leaf.numel() * leaf.element_size() for leaf in tensors(some))
        cut = held >= MOST_BYTES
        if cut:
            break
    if not kept:
        raise DataError(f"{where} has no batches; give at least one, of two samples or more")
    try:
        own = getattr(task, "join", None)
        whole = joined(kept, where) if own is None else own(kept)
        return MemorySplit(whole, task, where, cut, entries=entries)
    except TaskError as error:
        raise DataError(str(error)) from error


def _told(batches: Iterator[Any], where: str) -> Iterator[Any]:
    """Yield batches; what their own code raises becomes a sentence."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"{where} cannot be read: {reason(error)}") from error
        yield batch


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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python for a while, then put their states back."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
