"""Yes or no: one question a sample, or several at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainscope.errors import TaskError
from trainscope.records.metric import ACCURACY, HIGHER, Metric
from trainscope.task.batches import Batch, described, targets
from trainscope.task.task import Amount, Common, Outputs, ratio, single

_MANY = 16
"""So many logits are hardly ever all between 0 and 1."""


@dataclass(frozen=True)
class MultiLabel(Common):
    """Several labels a sample, each there or not: binary cross-entropy (nats) and mAP (percent).

    The network returns logits [N, K] for targets [N, K] of 0 and 1, of any dtype. The loss of a
    sample is the mean over its labels. The metric is the mean over labels of their average
    precision over the whole test half, as scikit-learn computes it; labels that no test sample has
    are left out.
    """

    @property
    def metric(self) -> Metric:
        """Return the mean average precision."""
        return Metric("mAP", "%", HIGHER)

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the binary cross-entropy of each sample, the mean over its labels, nats."""
        logits, wanted = self.both(outputs, batch)
        return F.binary_cross_entropy_with_logits(
            single(logits), single(wanted), reduction="none"
        ).mean(1)

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return logits and targets of the batch, to be joined with others', and its size."""
        logits, wanted = self.both(outputs, batch)
        pair = (logits.detach().double().cpu(), wanted.cpu() > 0.5)
        return (pair,), float(len(logits))

    def value(self, total: Amount, count: Amount) -> float:
        """Return the mAP, percent; NaN where no sample has a label."""
        assert isinstance(total, tuple)
        if not total:
            return math.nan
        logits, there = (torch.cat(column) for column in zip(*total, strict=True))
        if not bool(torch.isfinite(logits).all()):
            return math.nan
        found = average_precisions(logits, there)
        return 100.0 * float(found[torch.isfinite(found)].mean())

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the logits, [N, K]."""
        logits = self.main(outputs)
        return logits if logits.ndim == 2 else None

    def unsuited(self, outputs: Outputs) -> None:
        """Refuse what a sigmoid made, which would go through another one.

        Raises:
            TaskError: There are many numbers, and all of them lie between 0 and 1.
        """
        logits = self.main(outputs)
        if logits.numel() >= _MANY and bool(((logits >= 0) & (logits <= 1)).all()):
            raise TaskError(
                f"all {logits.numel()} outputs lie between 0 and 1, as after a sigmoid, and "
                f"{type(self).__name__} compares logits: return what goes into the sigmoid, or "
                "give loss=torch.nn.BCELoss() in the place of the task"
            )

    def both(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and targets, [N, K] each, the targets in the logits' dtype.

        Raises:
            TaskError: They do not fit each other.
        """
        logits, wanted = self.main(outputs), targets(batch, self.inputs)
        if not isinstance(wanted, Tensor):
            raise TaskError(
                f"a batch is {described(batch)}, without targets: give batches (inputs, targets), "
                "or dictionaries with 'labels'"
            )
        logits, wanted = self.shaped(logits, wanted)
        wanted = wanted.to(logits)
        if wanted.numel() and not 0 <= float(wanted.min()) <= float(wanted.max()) <= 1:
            raise TaskError(
                f"the targets go from {float(wanted.min()):g} to {float(wanted.max()):g}: give 0 "
                "where a label is not there and 1 where it is, or name another task"
            )
        return logits, wanted

    def shaped(self, logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as [N, K].

        Raises:
            TaskError: They are of other shapes.
        """
        if logits.ndim != 2 or logits.shape != wanted.shape:
            raise TaskError(
                f"the network returns {described(logits)} for {described(wanted)} as targets, and "
                "several labels a sample are logits [samples, labels] and targets of that shape"
            )
        return logits, wanted


@dataclass(frozen=True)
class Binary(MultiLabel):
    """One logit a sample for yes or no: binary cross-entropy (nats) and accuracy (percent).

    The network returns logits [N] or [N, 1] for targets [N] or [N, 1] of 0 and 1; a logit above 0
    says 1.
    """

    @property
    def metric(self) -> Metric:
        """Return the accuracy."""
        return ACCURACY

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return 100 times the number of right answers, and their number."""
        logits, wanted = self.both(outputs, batch)
        return 100.0 * float(((logits > 0) == (wanted > 0.5)).sum()), float(len(logits))

    def value(self, total: Amount, count: Amount) -> float:
        """Return the accuracy, percent."""
        return ratio(total, count)

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the logit, [N, 1]."""
        logits = self.main(outputs)
        return logits.reshape(-1, 1) if logits.ndim == 1 or logits.shape[1:] == (1,) else None

    def shaped(self, logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as [N, 1].

        Raises:
            TaskError: There are several numbers a sample, or not as many targets.
        """
        count = wanted.shape[0] if wanted.ndim else 1
        if not logits.numel() == wanted.numel() == count:
            raise TaskError(
                f"the network returns {described(logits)} for {described(wanted)} as targets, and "
                "yes or no is one logit and one target a sample"
            )
        return logits.reshape(-1, 1), wanted.reshape(-1, 1)


def average_precisions(scores: Tensor, there: Tensor) -> Tensor:
    """Return the average precision of each label, [K]; NaN where no sample has it.

    It is the mean, over the samples that have a label, of the precision among all that score as
    high or higher: the sum of (R_n - R_n-1) P_n over the distinct scores.

    Args:
        scores: [N, K].
        there: True where a sample has a label, [N, K].
    """
    ordered, places = scores.T.contiguous().sort(dim=1, descending=True, stable=True)
    right = there.T.gather(1, places).double()
    last = torch.searchsorted(-ordered, -ordered, right=True)  # one after those of equal score
    precision = right.cumsum(1).gather(1, last - 1) / last
    return (precision * right).sum(1) / right.sum(1)
