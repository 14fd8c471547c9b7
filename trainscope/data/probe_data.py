"""The pinned samples that a probe measures on, the same before and after the action."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trainscope.data.split import Split

LabelSource = Literal["true", "predicted"]


@dataclass(frozen=True)
class ProbeData:
    """Pinned samples, and where there is a labelled data set, its two halves.

    Attributes:
        name: The data, as `--data` takes it.
        inputs: [N, C, H, W], float, normalised.
        labels: [N], int64; None where there are none, or none can be predicted.
        label_source: "true", or "predicted" for labels drawn from the base network's softmax.
        train: The training half; None where there is no labelled data set.
        test: The test half; None likewise.
        batch_size: Samples that a probe may hold at once.
        seed: Of every random choice that a probe makes.
    """

    name: str
    inputs: Tensor
    labels: Tensor | None = None
    label_source: LabelSource = "true"
    train: Split | None = None
    test: Split | None = None
    batch_size: int = 128
    seed: int = 0

    def batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the pinned inputs and labels, `batch_size` at a time, in order."""
        for start in range(0, len(self.inputs), self.batch_size):
            stop = start + self.batch_size
            yield self.inputs[start:stop], None if self.labels is None else self.labels[start:stop]

    def to(self, device: torch.device | str) -> ProbeData:
        """Return the same data with the pinned samples on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, inputs=self.inputs.to(device), labels=labels)

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator seeded with `seed`."""
        return torch.Generator().manual_seed(self.seed)
