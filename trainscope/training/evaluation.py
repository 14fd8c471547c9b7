"""Measuring a network on a test half."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from itertools import pairwise
from operator import add

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainscope.data import Split
from trainscope.pace import tick
from trainscope.task import (
    NAMES,
    Batch,
    Classification,
    FromLoss,
    Outputs,
    Task,
    mean_loss,
    metric_value,
)
from trainscope.task.batches import beside, mapped, tensors
from trainscope.task.classification import one_label_each
from trainscope.task.modes import eval_mode
from trainscope.task.task import Amount, answers, ready, said_of

TEST_BATCH = 512
"""Test samples put forward at once; of tasks other than classification an eighth of it."""
NUMBERS = 1_600_000
"""Numbers of their inputs on a CPU, ten images of 224x224: of 48 at once each takes 1.5 times as
long, as what the layers return no longer fits its caches."""
FEWEST_PARTS = 32
"""A test half of such a task is put forward in so many parts, for a standard error over them."""
FIRST = 64
"""Test samples on which a user's metric is looked at: whether it is a mean over samples."""
MOST_KEPT = 2**31
"""Bytes of outputs and targets of the test half that are kept for a metric that is no mean."""
PARTS_OF_WHOLE = 8
"""Of a metric that is computed from what all samples keep (mAP), which costs more than a sum."""


Scoring = Callable[[Outputs, Batch], tuple[Amount, Amount]]
"""How a batch is scored: the metric's sum and count, or what is kept of it."""


@dataclass(frozen=True)
class Evaluation:
    """A network on a test half.

    Attributes:
        task: What it was asked to do.
        loss: The mean of the loss terms; None where it is not finite.
        parts: The metric's sum and count of each batch, in an order that is always the same.
        correct: [N], True where the largest logit is the label's, where one label a sample is
            compared; None for other tasks.
    """

    task: Task
    loss: float | None
    parts: tuple[tuple[Amount, Amount], ...]
    correct: Tensor | None = None

    @cached_property
    def metric(self) -> float | None:
        """Return the task's metric over the whole half; None where it is no number."""
        if self.correct is not None:
            return 100.0 * float(self.correct.double().mean())
        return metric_value(self.task, *added(self.parts))

    @cached_property
    def left_out(self) -> tuple[float | None, ...]:
        """Return the metric with each batch left out, over all others."""
        own = getattr(self.task, "without", None)
        if own is not None:
            found = own([total for total, _ in self.parts])
            return tuple(value if math.isfinite(value) else None for value in found)
        rest = ([*self.parts[:i], *self.parts[i + 1 :]] for i in range(len(self.parts)))
        return tuple(metric_value(self.task, *added(parts)) for parts in rest)


def added(parts: Sequence[tuple[Amount, Amount]]) -> tuple[Amount, Amount]:
    """Return the sums and counts of batches, added up."""
    totals, counts = zip(*parts, strict=True)
    return reduce(add, totals), reduce(add, counts)


def _grouped(parts: list[tuple[Amount, Amount]]) -> list[tuple[Amount, Amount]]:
    """Return parts that are kept whole as fewer ones."""
    if not isinstance(parts[0][0], tuple) or len(parts) <= PARTS_OF_WHOLE:
        return parts
    ends = [len(parts) * i // PARTS_OF_WHOLE for i in range(PARTS_OF_WHOLE + 1)]
    return [added(parts[a:b]) for a, b in pairwise(ends)]


@torch.no_grad()
def evaluate(
    network: nn.Module, split: Split, task: Task | None = None, *, batch_size: int | None = None
) -> Evaluation:
    """Measure a network, in eval mode, on a test half, on the device where it is.

    Modes are put back, also when it raises. The network gets copies, into which it may write.

    Args:
        network: Any.
        split: The test half.
        task: What the network is asked to do; by default classification.
        batch_size: Samples put forward at once; by default as `evaluated_at_once` says.
    """
    task = task or Classification()
    ready(task)
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    total = terms = 0.0
    parts, correct = [], []
    exact = type(task) in NAMES.values()  # losses of the user's own may hold weights of one dtype

    def forward(indices: Tensor) -> tuple[Outputs, Batch]:
        batch = beside(split.batch(indices), weight)
        with said_of(f"the network fails on a test batch of {len(indices)}"):
            outputs = task.outputs(network, batch)
        return mapped(_exact, outputs) if exact else outputs, batch

    with eval_mode(network):
        size = batch_size or evaluated_at_once(network, split, task)
        if (
            batch_size is None
            and not exact
            and _mixes(task, *forward(torch.arange(len(split))[:2]))
        ):
            size = TEST_BATCH // 8
        score: Scoring = task.score
        if isinstance(task, FromLoss) and task.measure is not None:
            score = scoring(task, *forward(torch.arange(min(len(split), FIRST))), len(split))
        for indices in _batches(len(split), size):
            outputs, batch = forward(indices)
            with said_of(f"the loss fails on a test batch of {len(indices)}"):
                lost, count = _loss(task, outputs, batch)
            total, terms = total + lost, terms + count
            tick(forward=len(indices))
            parts.append(score(answers(task, network, batch, outputs), batch))
            if type(task) is Classification and one_label_each(task, batch):
                logits, labels = task.labelled(outputs, batch)
                correct.append((logits.argmax(1) == labels).cpu())
    mean = total / terms if terms else math.nan
    single = bool(correct) and sum(map(len, correct)) == len(split)
    return Evaluation(
        task,
        mean if math.isfinite(mean) else None,
        tuple(_grouped(parts)),
        torch.cat(correct) if single else None,
    )


def scoring(task: FromLoss, outputs: Outputs, batch: Batch, samples: int) -> Scoring:
    """Return how batches are scored by a user's metric: as parts of a mean, or kept for the whole.

    What is no mean over samples is computed once, of all of them, where they can be kept.

    Args:
        task: With a metric.
        outputs: Of the first samples.
        batch: These.
        samples: Of the whole test half.
    """
    held = sum(x.numel() * x.element_size() for x in tensors(task.kept(outputs, batch)[0]))
    if held / task.size(batch) * samples > MOST_KEPT or task.averages(outputs, batch):
        return task.score
    return task.kept


def evaluated_at_once(network: nn.Module, split: Split, task: Task) -> int:
    """Return how many test samples are put forward at once.

    They are 512 in classification, on a CPU fewer of large inputs, unless a batch norm without
    running statistics takes those of the batch. Other tasks take fewer, so that there are
    `FEWEST_PARTS` batches.
    """
    if type(task) is not Classification:
        parts = PARTS_OF_WHOLE if hasattr(task, "without") else FEWEST_PARTS
        return max(1, min(TEST_BATCH // 8, len(split) // parts))
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is None]
    if weight.device.type != "cpu" or norms or not len(split):
        return TEST_BATCH
    leaves = tensors(split.batch(torch.arange(1)))
    numbers = sum(leaf.numel() for leaf in leaves if leaf.is_floating_point())
    return min(TEST_BATCH, max(1, NUMBERS // max(numbers, 1)))


def _exact(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def _batches(samples: int, size: int) -> list[Tensor]:
    """Return indices, a rest of one with the batch before it: some losses need two samples."""
    found = list(torch.split(torch.arange(samples), size))
    if size > 1 < len(found) and len(found[-1]) == 1:
        found[-2:] = [torch.cat(found[-2:])]
    return found


def _mixes(task: Task, outputs: Outputs, batch: Batch) -> bool:
    """Tell whether the loss of two samples is not made of their own."""
    return task.size(batch) > 1 and task.losses(outputs, batch).numel() == 1


def _loss(task: Task, outputs: Outputs, batch: Batch) -> tuple[float, float]:
    """Return the sum of a batch's loss terms and their number."""
    if hasattr(task, "loss") and not isinstance(task, Classification):
        size = float(task.size(batch))  # one number for a batch counts by its samples
        mean = task.average if isinstance(task, FromLoss) else partial(mean_loss, task)
        return float(mean(outputs, batch)) * size, size
    found = task.losses(outputs, batch)
    return float(found.sum()), float(found.numel())
