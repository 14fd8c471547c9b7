"""What a network is asked to do: the contract between a network, its data and everything here."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from trainscope.errors import TaskError
from trainscope.records.metric import Metric
from trainscope.task.batches import Batch, called, described, selected, size_of, tensors

Outputs = Any
"""Whatever a network returns: a tensor, or a tuple, dictionary or object that holds some."""

Amount = float | Tensor
"""A number, or a tensor of them where the metric is no plain mean."""


@runtime_checkable
class Task(Protocol):
    """What a network is asked to do. Its fields are plain values: two equal tasks are one task.

    A task may also have `loss(outputs, batch)`, the loss of a training step where that is not the
    mean of `losses`, and `value(total, count)`, the metric where that is not `total / count`.
    """

    @property
    def metric(self) -> Metric:
        """Return what a test measures."""

    def size(self, batch: Batch) -> int:
        """Return the number of samples."""

    def select(self, batch: Batch, indices: Tensor) -> Batch:
        """Return some of the samples."""

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the forward pass; integer inputs stay integer, and the batch stays as it is."""

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the terms whose mean is the loss, [terms]: one a sample, pixel or token."""

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return the metric's sum and count over a batch; those of batches are added up."""

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return what the Jacobian is of, [samples, K]; None where there is no such thing."""


@dataclass(frozen=True)
class Common:
    """What the tasks here have in common: how samples are counted, picked and put forward.

    Attributes:
        inputs: How many entries of a tuple batch the network takes; by default all but the last.
    """

    inputs: int | None = None

    def taking(self, inputs: int) -> Self:
        """Return the same task for networks that take so many entries of a tuple batch."""
        other = copy.copy(self)
        object.__setattr__(other, "inputs", inputs)
        return other

    def size(self, batch: Batch) -> int:
        """Return the number of samples: the length of the first tensor."""
        return size_of(batch)

    def select(self, batch: Batch, indices: Tensor) -> Batch:
        """Return some of the samples."""
        return selected(batch, indices, self.size(batch))

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the forward pass of copies of the inputs."""
        return called(model, batch, self.inputs)


def mean_loss(task: Task, outputs: Outputs, batch: Batch) -> Tensor:
    """Return the loss of a training step, a scalar."""
    own = getattr(task, "loss", None)
    if own is not None:
        found: Tensor = own(outputs, batch)
        return found
    return task.losses(outputs, batch).mean()


def metric_value(task: Task, total: Amount, count: Amount) -> float | None:
    """Return the metric of sums and counts that were added up; None where it is no number."""
    own = getattr(task, "value", None)
    if own is not None:
        found = float(own(total, count))
    else:
        found = float(total) / float(count) if float(count) else math.nan
    return found if math.isfinite(found) else None


def per_sample(task: Task, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return each sample's sum and number of loss terms, [N] float64 and [N] int64, detached.

    Where a sample has other than one term (pixels, tokens), each sample's are asked for alone.
    """
    with torch.no_grad():
        terms = task.losses(outputs, batch).detach().flatten().double()
    if len(terms) == task.size(batch):
        return terms, torch.ones(len(terms), dtype=torch.int64, device=terms.device)
    return each_alone(task, outputs, batch)


@torch.no_grad()
def each_alone(task: Task, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return what `per_sample` does, each sample's terms asked for alone."""
    sums, counts = [], []
    count = task.size(batch)
    for i in range(count):
        alone = task.losses(
            selected(outputs, slice(i, i + 1), count), task.select(batch, torch.tensor([i]))
        )
        sums.append(alone.detach().double().sum())
        counts.append(alone.numel())
    return torch.stack(sums), torch.tensor(counts, device=sums[0].device)


def main_tensor(outputs: Outputs, names: Sequence[str] = ("logits", "out")) -> Tensor:
    """Return the tensor that is meant among a network's outputs: the only one, or by a usual name.

    Raises:
        TaskError: There is none, or there are several and none has such a name.
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in names:
        found = outputs.get(name) if hasattr(outputs, "get") else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    there = [leaf for leaf in tensors(outputs) if leaf.is_floating_point() and leaf.ndim]
    if len(there) == 1:
        return there[0]
    which = "none is a tensor" if not there else f"none is called {' or '.join(map(repr, names))}"
    raise TaskError(
        f"the network returns {described(outputs)}, of which {which}: wrap it in a module that "
        "returns what is meant, or give a loss or a task of your own"
    )


def pooled(values: Tensor) -> Tensor:
    """Return values [N, K, ...] as [N, K]: their means over positions; [N] as [N, 1]."""
    if values.ndim < 2:
        return values.unsqueeze(1)
    return values.flatten(2).mean(2) if values.ndim > 2 else values
