"""The pinned samples that a probe measures on, the same before and after the action."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from trainscope.data.split import Split
from trainscope.task import Batch, Classification, Task
from trainscope.task.batches import mapped, targets

LabelSource = Literal["true", "predicted"]
_UNSET: Any = object()


@dataclass(frozen=True, init=False)
class ProbeData:
    """Pinned samples of a task, and where there is a data set, its two halves.

    Made either from a `batch` of the task or, for a pair, from its `inputs` and `labels`.

    Attributes:
        name: The data, as `--data` takes it.
        batch: All samples as one batch of the task; `(inputs,)` where there are no labels.
        task: What the network is asked to do.
        label_source: "true", or "predicted" for labels drawn from the base network's softmax.
        train: The training half; None where there is no data set to train on.
        test: The test half; None likewise.
        batch_size: Samples that a probe may hold at once.
        seed: Of every random choice that a probe makes.
    """

    name: str
    batch: Batch
    task: Task
    label_source: LabelSource
    train: Split | None
    test: Split | None
    batch_size: int
    seed: int

    def __init__(
        self,
        name: str,
        inputs: Any = _UNSET,
        labels: Any = _UNSET,
        label_source: LabelSource = "true",
        train: Split | None = None,
        test: Split | None = None,
        batch_size: int = 128,
        seed: int = 0,
        *,
        batch: Batch = _UNSET,
        task: Task | None = None,
    ) -> None:
        if batch is _UNSET or inputs is not _UNSET or labels is not _UNSET:
            there = [] if batch is _UNSET else list(batch)
            first = there[0] if inputs is _UNSET else inputs
            second = (there[1] if len(there) > 1 else None) if labels is _UNSET else labels
            batch = (first,) if second is None else (first, second)
        values = {"name": name, "batch": batch, "task": task or Classification()}
        values |= {"label_source": label_source, "train": train, "test": test}
        for field, value in {**values, "batch_size": batch_size, "seed": seed}.items():
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        """Return the number of pinned samples."""
        return self.task.size(self.batch)

    @property
    def inputs(self) -> Any:
        """Return the first part of a tuple batch; any other batch whole."""
        return self.batch[0] if isinstance(self.batch, tuple | list) else self.batch

    @property
    def labels(self) -> Any:
        """Return what the network should say, None where the batch does not name it."""
        return targets(self.batch, getattr(self.task, "inputs", None))

    @property
    def labelled(self) -> bool:
        """Tell whether there is all that a loss needs: every batch but `(inputs,)`."""
        return not (isinstance(self.batch, tuple | list) and len(self.batch) == 1)

    def batches(self) -> Iterator[Batch]:
        """Yield the pinned samples as batches of the task, `batch_size` at a time, in order."""
        for indices in torch.split(torch.arange(len(self)), self.batch_size):
            yield self.task.select(self.batch, indices)

    def first(self, count: int) -> ProbeData:
        """Return the same data with the first pinned samples alone; all of them as they are."""
        if count >= len(self):
            return self
        return replace(self, batch=self.task.select(self.batch, torch.arange(count)))

    def to(self, device: torch.device | str) -> ProbeData:
        """Return the same data with the pinned samples on a device."""

        def moved(leaf: Tensor) -> Tensor:
            return leaf.to(device)

        return replace(self, batch=mapped(moved, self.batch))

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator seeded with `seed`."""
        return torch.Generator().manual_seed(self.seed)
