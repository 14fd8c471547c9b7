"""What a network is asked to do: the contract between a network, its data and everything here."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from trainscope.errors import TaskError, TrainscopeError
from trainscope.foreign import reason
from trainscope.records.metric import Metric
from trainscope.task.batches import Batch, called, described, selected, size_of, tensors

_FAILS = (*(AttributeError, LookupError, RuntimeError, TypeError, ValueError, ZeroDivisionError),)
Outputs = Any
"""Whatever a network returns: a tensor, or a tuple, dictionary or object that holds some."""

Amount = float | Tensor | tuple[Any, ...]
"""A number; a tensor of them where the metric is no plain mean; or a tuple, which is added up by
being joined, of what a metric of the whole test half needs of each sample."""


@runtime_checkable
class Task(Protocol):
    """What a network is asked to do. Its fields are plain values: two equal tasks are one task.

    A task may also have

    - `loss(outputs, batch)`, the loss of a training step where that is not the mean of `losses`;
    - `value(total, count)`, the metric where that is not `total / count`;
    - `without(totals)`, the metrics with each of them left out, where there is a cheaper way to
      these than to ask for the value of the others;
    - `predictions(model, batch)`, what `score` is given where that takes another pass than
      `outputs` (a detector's boxes, a generated text);
    - `unsuited(outputs)`, which raises a TaskError for outputs that fit in form alone (what a
      sigmoid made, where logits are meant); it is asked once, before any work;
    - `ready()`, which raises where the metric cannot be computed here;
    - `no_signal`, why `signal` is None, and `note`, what a reader of a measurement must know;
    - `ragged = True` where samples are entries of lists and not rows of tensors; then also
      `join(batches)`, `collate(samples)` and `call(model, batch)`, one call with all samples.
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
        output: Which of several outputs is meant, by its name or its place: "logits", 0, or the way
            to one further in, "heads.0". A network that returns one tensor is taken at that.
    """

    unlabelled: ClassVar[bool] = False
    """A batch may hold inputs and nothing else."""

    inputs: int | None = None
    output: str | int | None = None

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

    def main(self, outputs: Outputs, names: Sequence[str] = ("logits", "out")) -> Tensor:
        """Return the tensor that is meant among a network's outputs.

        Raises:
            TaskError: It is not there, or which is meant is not known.
        """
        if self.output is not None and not isinstance(outputs, Tensor):
            return picked(outputs, str(self.output))
        return main_tensor(outputs, names)


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """Say in a sentence what a network, a loss or a metric of somebody's raises.

    Args:
        what: What fails, like "the network fails on a training batch of 64".

    Raises:
        TaskError: The block raises what is no error of ours, nor one of memory.
    """
    try:
        yield
    except _FAILS as e:
        if isinstance(e, TrainscopeError) or "memory" in str(e):
            raise
        bounds = "; labels are from 0 to one less than the network's outputs"
        hint = bounds if "out of bounds" in str(e) else ""
        raise TaskError(f"{what}: {reason(e).rstrip('.')}{hint}") from e


def mean_loss(task: Task, outputs: Outputs, batch: Batch) -> Tensor:
    """Return the loss of a training step, a scalar."""
    own = getattr(task, "loss", None)
    if own is not None:
        found: Tensor = own(outputs, batch)
        return found
    return mean_of(task.losses(outputs, batch))


def mean_of(terms: Tensor) -> Tensor:
    """Return the mean of loss terms; 0 where no label of a batch counts, which teaches nothing."""
    return terms.mean() if terms.numel() else terms.sum()


def why_reaching(task: Task, model: nn.Module, batch: Batch, outputs: Outputs) -> str | None:
    """Return why a loss is none of the outputs alone, None where it is.

    A penalty that a loss takes of the weights of a network that it knows is of that object: copies,
    and a pruned network, have other weights, and a pass of ours puts others in their place.

    Args:
        task: Its losses are computed, with gradients.
        model: The network.
        batch: Some samples.
        outputs: Of them, without a graph.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        losses = task.losses(outputs, batch)
    left = [losses.grad_fn] if isinstance(losses, Tensor) else []
    seen = {*left}
    while left:
        new = {each for each, _ in getattr(left.pop(), "next_functions", ())} - seen - {None}
        seen |= new
        left += new
    leaves = {id(getattr(node, "variable", None)) for node in seen}
    taken = next((name for name, p in model.named_parameters() if id(p) in leaves), None)
    return taken and (
        f"the loss takes the weight '{taken}' itself, as a penalty does, and not from the outputs, "
        "so it would miss every copy and the pruned network: let the network return its weights' "
        "penalty beside its outputs and the loss add that, or leave it out (weight decay is a "
        "setting of the optimizer)"
    )


def is_ragged(task: Task) -> bool:
    """Tell whether samples are entries of lists, each with a shape of its own."""
    return bool(getattr(task, "ragged", False))


def ready(task: Task) -> None:
    """Check that a task's metric can be computed here.

    Raises:
        TaskError: It needs what is not installed.
    """
    own = getattr(task, "ready", None)
    if own is not None:
        own()


def answers(task: Task, model: nn.Module, batch: Batch, outputs: Outputs) -> Outputs:
    """Return what a task's `score` is given: the outputs, or predictions of a pass of their own."""
    own = getattr(task, "predictions", None)
    return outputs if own is None else own(model, batch)


def sample_shape(task: Task, batch: Batch) -> tuple[int, ...]:
    """Return the shape of the first tensor of the first sample."""
    first = tensors(batch)[0]
    return tuple(first.shape if is_ragged(task) else first.shape[1:])


def ratio(total: Amount, count: Amount) -> float:
    """Return a sum over a count; NaN where nothing was counted."""
    assert not isinstance(total, tuple)
    assert not isinstance(count, tuple)
    return float(total) / float(count) if float(count) else math.nan


def metric_value(task: Task, total: Amount, count: Amount) -> float | None:
    """Return the metric of sums and counts that were added up; None where it is no number."""
    own = getattr(task, "value", None)
    found = float(own(total, count)) if own is not None else ratio(total, count)
    return found if math.isfinite(found) else None


@torch.no_grad()
def per_sample(task: Task, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return each sample's sum and number of loss terms, [N] float64 and [N] int64, detached.

    Each sample's are asked for alone: that there are as many terms as samples does not mean that
    each has one, where some labels are not counted.
    """
    sums, counts = [], []
    count = task.size(batch)
    for i in range(count):
        alone = task.losses(
            selected(outputs, slice(i, i + 1), count), task.select(batch, torch.tensor([i]))
        )
        sums.append(alone.detach().double().sum())
        counts.append(alone.numel())
    return torch.stack(sums), torch.tensor(counts, device=sums[0].device)


def single(logits: Tensor) -> Tensor:
    """Return logits in float32 where they are in less, in which a loss has three digits."""
    return logits.float() if logits.is_floating_point() and logits.itemsize < 4 else logits


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
        f"the network returns {described(outputs)}, of which {which}: say which is meant by its "
        "name or place (output=0, --task classification:output=0), wrap the network in a module "
        "that returns it, or give a loss or a task of your own"
    )


def picked(outputs: Outputs, path: str) -> Tensor:
    """Return the tensor at a place among a network's outputs: a name, a number, or a way of both.

    Raises:
        TaskError: There is none.
    """
    found = outputs
    for step in path.split("."):
        if isinstance(found, tuple | list) and step.lstrip("-").isdigit():
            found = found[int(step)] if -len(found) <= int(step) < len(found) else None
        elif hasattr(found, "get"):
            found = found.get(step)
        else:
            found = getattr(found, step, None)
    if isinstance(found, Tensor):
        return found
    raise TaskError(
        f"the network returns {described(outputs)}, and no tensor at '{path}': give the name or "
        "the place of one of them (output=, --task NAME:output=..)"
    )


def pooled(values: Tensor) -> Tensor:
    """Return values [N, K, ...] as [N, K]: their means over positions; [N] as [N, 1]."""
    if values.ndim < 2:
        return values.unsqueeze(1)
    return values.flatten(2).mean(2) if values.ndim > 2 else values
