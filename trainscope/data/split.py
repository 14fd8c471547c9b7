"""One half (train or test) of a data set, read by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainscope.task.batches import Batch

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""A random change of one batch of normalised inputs [N, C, H, W], of the same shape."""


class Split(Protocol):
    """Samples that can be read in any order."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at indices as a batch of the data's task.

        Of images: inputs [N, C, H, W] (float32, normalised) and labels [N] (int64).
        """

    @property
    def augment(self) -> Augment | None:
        """Return the standard augmentation for training on this split, if it has one."""


@dataclass(frozen=True)
class TensorSplit:
    """A split that is held in memory.

    Attributes:
        inputs: [N, C, H, W], uint8 (0 to 255) or float32 (0 to 1).
        labels: [N], int64.
        mean: Each channel's mean on the 0-to-1 scale, taken off.
        std: Each channel's standard deviation on the 0-to-1 scale, divided by.
        augment: The standard augmentation for training, or None.
    """

    inputs: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised inputs and the labels at indices."""
        inputs = self.inputs[indices]
        inputs = inputs.float().div_(255.0) if inputs.dtype == torch.uint8 else inputs.float()
        shape = (1, -1, 1, 1)
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        return (inputs - mean) / std, self.labels[indices]


@dataclass(frozen=True)
class DrawnSplit:
    """Some samples of another split.

    Attributes:
        whole: The other split.
        places: Which samples, [N].
    """

    whole: Split
    places: Tensor

    @classmethod
    def of(cls, whole: Split, count: int, seed: int = 0) -> Split:
        """Return so many samples drawn without return; the split itself where it has no more."""
        if count >= len(whole):
            return whole
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
        return cls(whole, order[:count])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.places)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at indices."""
        return self.whole.batch(self.places[indices])

    @property
    def augment(self) -> Augment | None:
        """Return the augmentation of the whole split."""
        return self.whole.augment
