"""A task from a loss, and perhaps a metric, of the user's own."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainscope.errors import TaskError
from trainscope.foreign import reason
from trainscope.records.metric import LOWER, Metric
from trainscope.task.batches import (
    Batch,
    described,
    joined,
    mapped,
    selected,
    size_of,
    targets,
    tensors,
)
from trainscope.task.task import Amount, Common, Outputs, pooled, ratio

FEWEST = 8
"""Samples from which on parts of a batch tell whether a metric is their mean."""
_CLOSE = 1e-4
"""A batch's loss is the mean (or the sum) of its samples' where it is within this share of it."""


@dataclass(frozen=True)
class FromLoss(Common):
    """A loss and a metric as people write them.

    Both are called with the network's outputs and the targets: what follows the inputs in a tuple
    batch, as many entries as the function needs; the whole batch where it is a dictionary; nothing
    more where the function takes one argument. A loss that returns one number for a batch is taken
    apart into its samples' by batches of one; where these do not have it as their mean or sum (it
    mixes samples), the batch is one term, and nothing is measured of single samples.

    Attributes:
        criterion: The loss.
        measure: The metric, a number or one a sample; by default the loss.
        better: "higher" or "lower", of the metric.
        name: Of the metric; by default after the function.
        unit: Of the metric.
    """

    unlabelled: ClassVar[bool] = True
    no_signal: ClassVar[str] = (
        "not every tensor of the network's outputs has a row for each sample, so what a sample's "
        "outputs are is not known; give a task of your own, whose signal() says it"
    )

    criterion: Callable[..., Any] = torch.nn.functional.cross_entropy
    measure: Callable[..., Any] | None = None
    better: str = LOWER
    name: str = ""
    unit: str = ""

    def __init__(
        self,
        loss: Callable[..., Any],
        metric: Callable[..., Any] | None = None,
        *,
        better: str = LOWER,
        name: str = "",
        unit: str = "",
        inputs: int | None = None,
    ) -> None:
        for what, function in (("loss", loss), ("metric", metric)):
            if isinstance(function, type):
                raise TaskError(
                    f"the {what} is the class {function.__name__}: give one of it, as "
                    f"{function.__name__}() makes"
                )
            if function is not None and not callable(function):
                raise TaskError(f"the {what} is a {type(function).__name__}, not a function")
        fields = {"criterion": loss, "measure": metric, "better": better, "inputs": inputs}
        for field, value in {**fields, "name": name, "unit": unit}.items():
            object.__setattr__(self, field, value)
        try:
            _ = self.metric
        except ValueError as error:
            raise TaskError(str(error)) from error

    @property
    def metric(self) -> Metric:
        """Return the metric's name, unit and direction."""
        name = self.name or ("loss" if self.measure is None else _name(self.measure))
        name = "metric" if name == LAMBDA else name
        return Metric(name, self.unit, LOWER if self.measure is None else self.better)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of a batch as it is written, a scalar."""
        found = self._said("loss", self.criterion, outputs, batch)
        return found.mean() if found.ndim else found

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return one term a sample, or a single one where the loss mixes samples."""
        whole = self._said("loss", self.criterion, outputs, batch)
        count = self.size(batch)
        if whole.numel() != 1:
            return whole.flatten()
        if count == 1 or not _by_sample(outputs, count):
            return whole.reshape(1)
        try:
            terms = self._singles(outputs, batch, count)
        except TaskError:  # it does not take a batch of one
            return whole.reshape(1)
        found = terms.detach()
        made = _same(whole, found.mean()) or _same(whole, found.sum())
        return terms if made else whole.reshape(1)

    def reduces(self, outputs: Outputs, batch: Batch) -> bool:
        """Tell whether the loss is one number for a batch, whose samples' are to be found out."""
        return self._said("loss", self.criterion, outputs, batch).numel() == 1

    def average(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of a batch as a mean over its samples, a scalar.

        It is `loss`, over their number where that is a sum, which the first two samples show.
        """
        found, count = self.loss(outputs, batch), self.size(batch)
        if count < 2 or not _by_sample(outputs, count):
            return found
        two = selected(outputs, slice(2), count), selected(batch, slice(2), count)
        try:
            whole, single = self._said("loss", self.criterion, *two), self._singles(*two, 2)
        except TaskError:  # it does not take so few
            return found
        if whole.numel() != 1:
            return found
        summed = _same(whole, single.sum()) and not _same(whole, single.mean())
        return found / count if summed else found

    def _singles(self, outputs: Outputs, batch: Batch, count: int) -> Tensor:
        """Return the loss of each sample as a batch of its own, [N]."""
        rows = [
            self._said(
                "loss",
                self.criterion,
                selected(outputs, slice(i, i + 1), count),
                selected(batch, slice(i, i + 1), count),
            )
            for i in range(count)
        ]
        return torch.stack([row.mean() for row in rows])

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return the metric's sum over samples and their number."""
        count = float(self.size(batch))
        with torch.no_grad():
            if self.measure is None:
                return float(self.average(outputs, batch)) * count, count
            found = self._said("metric", self.measure, outputs, batch).double()
        if found.ndim and len(found) == count:
            return float(found.sum()), float(found.numel())
        return float(found.mean()) * count, count

    def averages(self, outputs: Outputs, batch: Batch) -> bool:
        """Tell whether the metric of a batch is seen to be the mean of its parts'.

        An F score, an R2, an RMSE or an AUC is not. Parts that all have one value do not show it.
        """
        count, measure = self.size(batch), self.measure
        if measure is None:
            return True
        if count < FEWEST or not _by_sample(outputs, count):
            return False
        large = (0, count // 4, count // 4 + count // 3, count)
        small = (*range(0, count - 1, 2), count)  # where the first are a mean by chance
        try:
            whole = self._said("metric", measure, outputs, batch).double()
            if whole.ndim and len(whole) == count:  # one a sample, and not one a class
                return True
            whole = whole.mean()
            for ends in (large, small):
                rows = [slice(a, b) for a, b in pairwise(ends)]
                some = ((selected(x, k, count) for x in (outputs, batch)) for k in rows)
                parts = [self._said("metric", measure, *pair).double().mean() for pair in some]
                values = torch.stack(parts)
                shares = values.new_tensor([k.stop - k.start for k in rows]) / count
                if not _same(whole, (values * shares).sum()) or _same(values.min(), values.max()):
                    return False
        except TaskError:  # it does not take so few
            return False
        return True

    def kept(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return what the metric is computed from, to be joined with other batches', and a size."""
        assert self.measure is not None
        wanted = self._wanted(self.measure, batch)
        pair = mapped(lambda leaf: leaf.detach().cpu(), (outputs, wanted))
        return (pair,), float(self.size(batch))

    def value(self, total: Amount, count: Amount) -> float:
        """Return the metric: of all samples together where they were kept, else the mean."""
        if not isinstance(total, tuple):
            return ratio(total, count)
        try:
            pairs = [joined(list(total), "the test half")]
        except TaskError:  # the outputs of batches are of several shapes
            pairs = list(total)
        assert self.measure is not None
        with torch.no_grad():
            found = [float(self._told("metric", self.measure, *p).double().mean()) for p in pairs]
        sizes = [size_of(pair) for pair in pairs]
        return math.fsum(map(operator.mul, found, sizes)) / sum(sizes)

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the outputs, [N, K]; several positions as their means, several tensors joined."""
        found = [leaf for leaf in tensors(outputs) if leaf.is_floating_point() and leaf.ndim]
        if not found or any(len(leaf) != len(found[0]) for leaf in found):
            return None
        return torch.cat([pooled(leaf) for leaf in found], 1)

    def _said(
        self, what: str, function: Callable[..., Any], outputs: Outputs, batch: Batch
    ) -> Tensor:
        """Return what the user's function says, as a tensor.

        Raises:
            TaskError: It raises, or returns no number.
        """
        return self._told(what, function, outputs, self._wanted(function, batch))

    def _wanted(self, function: Callable[..., Any], batch: Batch) -> tuple[Batch, ...]:
        """Return what a loss or a metric gets beside the outputs."""
        needed = _arguments(function)
        if needed == 1:
            return ()
        if isinstance(batch, Mapping):
            return (batch,)
        if needed is not None and needed > 2 and self.inputs and isinstance(batch, tuple | list):
            return tuple(batch[self.inputs : self.inputs + needed - 1])  # weights of samples, say
        wanted = targets(batch, self.inputs)
        return (batch if wanted is None else wanted,)

    def _told(
        self, what: str, function: Callable[..., Any], outputs: Outputs, wanted: tuple[Batch, ...]
    ) -> Tensor:
        given = (outputs, *wanted)
        try:
            found = _beside(function, outputs)(*given)
        except Exception as error:  # whatever the user's code raises
            raise TaskError(f"the {what} {_name(function)} fails: {reason(error)}") from error
        if isinstance(found, bool | int | float):
            found = torch.tensor(float(found))
        if not isinstance(found, Tensor):
            raise TaskError(
                f"the {what} {_name(function)} returns {described(found)}: let it return a number"
            )
        return found


def _by_sample(outputs: Outputs, count: int) -> bool:
    """Tell whether any output has a row a sample: a loss that the network returns has none."""
    return any(leaf.ndim and len(leaf) == count for leaf in tensors(outputs))


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one.detach(), other.detach(), _CLOSE, 1e-6).all())


def _beside(function: Callable[..., Any], outputs: Outputs) -> Callable[..., Any]:
    """Return a loss on the outputs' device and in their dtype: a module may hold class weights."""
    found = (leaf for leaf in tensors(outputs) if leaf.is_floating_point())
    like = next(found, None) if isinstance(function, torch.nn.Module) else None
    if like is None or not isinstance(function, torch.nn.Module):
        return function
    own = [t for t in (*function.parameters(), *function.buffers()) if t.is_floating_point()]
    if all((t.device, t.dtype) == (like.device, like.dtype) for t in own):
        return function
    return copy.deepcopy(function).to(device=like.device, dtype=like.dtype)


LAMBDA = "<lambda>"
"""What Python calls a function that has no name."""


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _arguments(function: Callable[..., Any]) -> int | None:
    """Return how many arguments a function cannot do without; None where it does not say."""
    own = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(own).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
