"""A network lent for measuring, with the pinned samples, and what is counted of its passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainscope.errors import ProbeError
from trainscope.pace import tick
from trainscope.probes.processes.ranks import ALONE, Ranks
from trainscope.probes.subject.behaviour import Behaviour
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NonFiniteError, checked_outputs
from trainscope.records import Cost
from trainscope.task import (
    Batch,
    Classification,
    Outputs,
    Task,
)
from trainscope.task.batches import targets, tensors


@dataclass
class Passes:
    """Samples put through a network.

    Attributes:
        forward: Forward passes.
        backward: Backward passes.
    """

    forward: int = 0
    backward: int = 0

    def add(self, *, forward: int = 0, backward: int = 0) -> None:
        """Count some, also for whoever keeps the time (`trainscope.pace`)."""
        self.forward += forward
        self.backward += backward
        tick(forward, backward)


@dataclass
class Lent:
    """A network lent for measuring, with the pinned samples in its own dtype and device.

    Attributes:
        network: The network as given, in eval mode.
        model: The same function, eval batch norm folded into its convolution where that can be.
        task: What it is asked to do.
        batch: All samples as one batch, floating-point tensors in the network's dtype.
        labelled: There is all that the loss needs.
        batch_size: Samples held at once; all N where a sample's outputs depend on its batch.
        behaviour: What was found out about the network before.
        ranks: The processes that measure together, each on its share of the samples.
        spread: The parameters are local parts, and derivatives by them come summed (`shards`).
        passes: Samples put forward and backward so far.
    """

    network: nn.Module
    model: nn.Module
    task: Task
    batch: Batch
    labelled: bool
    batch_size: int
    behaviour: Behaviour
    ranks: Ranks = ALONE
    spread: bool = False
    passes: Passes = field(default_factory=Passes)
    started: float = field(default_factory=time.perf_counter)
    _terms: int | None = None

    def __len__(self) -> int:
        """Return the number of pinned samples."""
        return self.task.size(self.batch)

    @property
    def weight(self) -> Tensor:
        """Return a tensor of the device and dtype that is computed in."""
        weights = (p for p in self.network.parameters() if p.is_floating_point())
        found: Tensor | None = next(weights, None)
        if found is None:
            found = next((leaf for leaf in tensors(self.batch) if leaf.is_floating_point()), None)
        return torch.empty(0) if found is None else found

    @property
    def softmax(self) -> bool:
        """Tell whether the loss is one cross-entropy a sample, for which there are short ways."""
        return type(self.task) is Classification and self.behaviour.classes is not None

    def some(self, start: int, stop: int) -> Batch:
        """Return the samples from `start` to before `stop`."""
        return self.task.select(self.batch, torch.arange(start, min(stop, len(self))))

    def batches(self, size: int | None = None, count: int | None = None) -> Iterator[Batch]:
        """Yield this process's share of the samples in order.

        Args:
            size: Samples at a time at most; by default, and at most, `batch_size`.
            count: Share out the first samples alone.
        """
        for indices in self.shares(len(self) if count is None else count, size):
            yield self.task.select(self.batch, indices)

    def shares(self, count: int, size: int | None = None) -> Iterator[Tensor]:
        """Yield which of so many samples are this process's, at most `size` of them at a time.

        Where parameters are spread, each pass gathers them, so that all processes make as many.
        """
        if self.behaviour.coupled is not None:
            yield torch.arange(count)
            return
        size = max(1, min(size or self.batch_size, self.batch_size))
        if self.by_all(count):
            yield from torch.split(torch.arange(count), size)
            return
        share = self.ranks.share(count)
        own = torch.arange(share.start, share.stop)
        if not self.spread:
            yield from torch.split(own, size) if len(own) else ()
            return
        least = count // self.ranks.count
        yield from own.tensor_split(-(-least // size))

    def by_all(self, count: int) -> bool:
        """Tell whether every process takes all of so many samples, for they cannot be shared out.

        That is so where they depend on each other, and where a process would have none and could
        not help to gather parameters.
        """
        few = self.spread and count < self.ranks.count
        return self.ranks.count > 1 and (self.behaviour.coupled is not None or few)

    def mean(self, terms: Tensor) -> Tensor:
        """Return this process's part of the mean loss, from the terms of its batch."""
        return terms.sum() * self.mean_share

    @property
    def mean_share(self) -> float:
        """Return what a term of a batch of this process counts for in the mean loss."""
        return 1 / (self.terms * (self.ranks.count if self.by_all(len(self)) else 1))

    def total(self, values: Tensor, count: int | None = None) -> Tensor:
        """Return the sum over all samples, from sums over each process's share of them.

        Args:
            values: Summed over the batches that `batches` yields.
            count: As there.
        """
        by_all = self.by_all(len(self) if count is None else count)
        return self.ranks.sum(values / self.ranks.count if by_all else values)

    def gradient(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return derivatives of the mean loss by the parameters, from those of `mean`'s parts."""
        if self.spread or self.ranks.count == 1:
            return list(values)
        flat = self.ranks.sum(torch.cat([value.reshape(-1) for value in values]))
        pieces = torch.split(flat, [value.numel() for value in values])
        return [p.view(value.shape) for p, value in zip(pieces, values, strict=True)]

    def gather(self, rows: Sequence[Tensor], count: int | None = None) -> Tensor:
        """Return one row for each sample, in order, from those of the batches of this process."""
        if self.by_all(len(self) if count is None else count):
            return self.ranks.first(torch.cat(list(rows)))
        return self.ranks.gather(rows)

    def used(
        self, weights: Measured, terms: Tensor, of: Callable[[Batch], Tensor] | None = None
    ) -> Measured:
        """Return the parameters that a loss depends on, in every process the same.

        Where that of some samples does not depend on all of them, others may take another way
        through the network, as to other experts of a mixture: all are put forward then.

        Args:
            weights: The parameters.
            terms: Of the loss of some samples; the graph is kept.
            of: From a batch to what `terms` is of the first samples; by default the loss.
        """
        of = of or (lambda batch: self.losses(self.outputs(batch), batch))
        reached = set(weights.used_by(terms).names)
        if not self._by_any(weights, reached).all():
            for batch in self.batches():
                reached.update(weights.used_by(of(batch)).names)
                if self.ranks.count == 1 and len(reached) == len(weights.names):
                    break
        flags = self._by_any(weights, reached).tolist()
        return weights.named({n for n, flag in zip(weights.names, flags, strict=True) if flag})

    def _by_any(self, weights: Measured, names: Collection[str]) -> Tensor:
        """Return for each parameter whether it is one of those named in any process."""
        flags = torch.tensor([float(name in names) for name in weights.names], dtype=torch.float64)
        return self.ranks.sum(flags) > 0

    @property
    def look(self) -> Batch:
        """Return samples that show what the network's graph is: the first, or all as one batch."""
        return self.batch if self.behaviour.coupled else self.some(0, 1)

    def outputs(self, batch: Batch) -> Outputs:
        """Return the network's outputs for a batch, checked.

        Raises:
            ProbeError: The network fails, or its outputs do not fit the task.
            NonFiniteError: One of them is NaN or infinite.
        """
        found = checked_outputs(self.task, self.model, batch)
        if self.softmax:
            check_labels(self.task, found, batch)
        self.passes.add(forward=self.task.size(batch))
        for leaf in tensors(found):
            if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                what = "logits hold" if self.softmax else "outputs hold"
                raise NonFiniteError(f"the network's {what} NaN or infinite values")
        return found

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the terms of the loss, [terms].

        Raises:
            ProbeError: Outputs and batch do not fit each other.
        """
        return self.task.losses(outputs, batch).flatten()

    @property
    def terms(self) -> int:
        """Return the number of terms of the loss over all samples; a pass where that is unknown."""
        if self._terms is None:
            if self.softmax:
                self._terms = len(self)
            else:
                with torch.no_grad():
                    own = sum(
                        self.losses(self.outputs(batch), batch).numel() for batch in self.batches()
                    )
                self._terms = round(float(self.total(torch.tensor(own, dtype=torch.float64))))
            if not self._terms:
                raise ProbeError("no label of the pinned samples counts: give other samples")
        return self._terms

    def count(self, terms: int) -> int:
        """Take note of the number of the loss's terms over all samples, which a pass has shown."""
        self._terms = terms
        return self.terms

    def cost(self) -> Cost:
        """Return what was spent so far."""
        seconds = time.perf_counter() - self.started
        both = self.ranks.sum(torch.tensor([self.passes.forward, self.passes.backward]))
        return Cost(seconds, *both.tolist())


def check_labels(task: Task, outputs: Outputs, batch: Batch) -> None:
    """Refuse labels that the network has no output for."""
    assert isinstance(task, Classification)
    logits, labels = task.logits(outputs), targets(batch, task.inputs)
    if isinstance(labels, Tensor) and labels.numel() and int(labels.max()) >= logits.shape[-1]:
        raise ProbeError(
            f"the data has a label {int(labels.max())} but the network only "
            f"{logits.shape[-1]} outputs; choose data with that many classes"
        )
