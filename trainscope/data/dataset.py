"""A data set: its two halves, its shape, and what networks are asked to do with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainscope.data.split import Split
from trainscope.task import Batch, Classification, Task


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: As `--data` takes it.
        train: The training half; None for a folder of images that has no such half.
        test: The test half.
        num_classes: The number of classes; None where only the network can say.
        input_shape: The shape of one input, (C, H, W); of other batches, of their first tensor.
        classes: The names of the classes in the order of the labels, where folders say them.
        notes: What a person should know of how it was read, each one sentence.
        task: What its batches are for.
        entries: Of a batch as it came, where it is a tuple; its `first_batch` may have fewer.
    """

    name: str
    train: Split | None
    test: Split
    num_classes: int | None
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    task: Task = field(default_factory=Classification)
    entries: int = 0

    @property
    def first_batch(self) -> Batch:
        """The first two samples of the test half."""
        return self.test.batch(torch.arange(min(2, len(self.test))))

    @property
    def plain(self) -> bool:
        """Whether its batches are floating-point inputs with one class index each."""
        batch = self.first_batch
        pair = isinstance(batch, tuple) and len(batch) == 2
        if not pair or type(self.task) is not Classification:
            return False
        inputs, labels = batch
        if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
            return False
        return inputs.is_floating_point() and labels.ndim == 1
