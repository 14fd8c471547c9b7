"""One half of the data that a person brings: read by index where that can be, else kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
)
from torch.utils.data import Dataset as TorchDataset

from trainscope.data.batch_forms import taken_batch
from trainscope.data.split import Augment, Split
from trainscope.data.untouched import as_it_was, seeded
from trainscope.errors import DataError, TaskError
from trainscope.foreign import reason
from trainscope.task import Batch, Classification, FromLoss, Task
from trainscope.task.batches import (
    joined,
    mapped,
    plain,
    refuse_changing,
    targets,
    tensors,
)

MOST_BYTES = 2 * 2**30
"""Of an iterable that cannot be read by index, so much is read and kept in memory."""
MOST_SAMPLES = 100_000
"""So many are read of one that does not say how long it is: it may have no end."""


@dataclass(frozen=True)
class MemorySplit:
    """Batches that were read once and are kept, as they came.

    Attributes:
        samples: All of them as one batch.
        task: What they are for.
        where: What the data is called.
        cut: What was read where there was more, like "2 GiB"; "" where it was all.
        augment: None: what was random in them is fixed by now.
        entries: Of a batch as it came, where it is a tuple.
    """

    samples: Batch
    task: Task
    where: str = ""
    cut: str = ""
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
        with seeded(zlib.crc32(np.asarray(chosen, dtype=np.int64).tobytes())):
            try:
                return self.collate([self.samples[place] for place in chosen])
            except Exception as error:  # whatever the data set's own code raises
                raise DataError(f"{self.where} cannot be read: {reason(error)}") from error


def half_of(data: Any, where: str, task: Task) -> Split:
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
    """Read batches once, up to `MOST_BYTES`; what the loader draws and counts is put back."""
    with as_it_was(data):
        kept, cut, entries = _kept(data, where, task)
    if not kept:
        raise DataError(f"{where} has no batches; give at least one, of two samples or more")
    try:
        own = getattr(task, "join", None)
        if isinstance(task, FromLoss):
            refuse_changing(kept, where)
        whole = joined(kept, where) if own is None else own(kept)
        return MemorySplit(whole, task, where, cut, entries=entries)
    except TaskError as error:
        raise DataError(str(error)) from error


def _kept(data: Any, where: str, task: Task) -> tuple[list[Batch], str, int]:
    """Return batches, what was read where there are more, and the entries of one as it came."""
    try:
        batches = iter(data)
    except TypeError as error:
        raise DataError(
            f"{where} is a {type(data).__name__}, which cannot be gone through: give a DataLoader "
            "or any iterable of batches"
        ) from error
    kept: list[Batch] = []
    held, entries, samples, endless = 0, 0, 0, not _says_length(data)
    for batch in _told(batches, where):
        entries = entries or _entries(batch)
        some = mapped(lambda leaf: leaf.detach().cpu(), taken_batch(batch, where, task))
        kept.append(some)
        held += sum(leaf.numel() * leaf.element_size() for leaf in tensors(some))
        if held >= MOST_BYTES:
            return kept, f"{MOST_BYTES / 2**30:.3g} GiB", entries
        samples += task.size(some) if endless else 0
        if samples >= MOST_SAMPLES:
            return kept, f"{samples:,} samples", entries
    return kept, "", entries


def _says_length(data: Any) -> bool:
    try:
        return len(data) >= 0
    except Exception:  # whatever its own code raises
        return False


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


def _entries(batch: object) -> int:
    found = plain(batch)
    return len(found) if isinstance(found, tuple) else 0
