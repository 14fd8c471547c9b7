"""Predicting numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from trainscope.errors import TaskError
from trainscope.records.metric import LOWER, Metric
from trainscope.task.batches import Batch, described, targets
from trainscope.task.task import Amount, Common, Outputs, pooled, ratio

_LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


@dataclass(frozen=True)
class Regression(Common):
    """Mean squared error (or another) between outputs and targets of one shape, and their RMSE.

    The loss of a sample is the mean over its numbers. Outputs [N, 1] fit targets [N]. A batch that
    is inputs alone is its own target, as an autoencoder has it.

    Attributes:
        loss_name: "mse", "mae" or "huber".
    """

    loss_name: str = "mse"

    def __post_init__(self) -> None:
        """Check the loss.

        Raises:
            TaskError: It is none of the three.
        """
        if self.loss_name not in _LOSSES:
            raise TaskError(f"regression has no loss '{self.loss_name}': give mse, mae or huber")

    @property
    def metric(self) -> Metric:
        """Return the root mean squared error, in the targets' unit."""
        return Metric("RMSE", "", LOWER)

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample, [N]."""
        found, wanted = self._both(outputs, batch)
        each = _LOSSES[self.loss_name](found, wanted, reduction="none")
        return each.flatten(1).mean(1) if each.ndim > 1 else each

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return the sum of squared errors and the number of outputs."""
        found, wanted = self._both(outputs, batch)
        return float((found - wanted).double().square().sum()), float(wanted.numel())

    def value(self, total: Amount, count: Amount) -> float:
        """Return the RMSE."""
        return math.sqrt(ratio(total, count))

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the outputs [N, K]; of several positions their means."""
        return pooled(self.main(outputs, ("prediction", "logits", "out")))

    def _both(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        found = self.main(outputs, ("prediction", "logits", "out"))
        wanted = targets(batch, self.inputs)
        if isinstance(batch, Tensor) and _squeezed(found) == _squeezed(batch):
            wanted = batch
        if not isinstance(wanted, Tensor):
            raise TaskError(
                f"a batch is {described(batch)}, without targets: give batches (inputs, targets)"
            )
        if _squeezed(found) != _squeezed(wanted):  # [N, 1] against [N] would be spread to [N, N]
            raise TaskError(
                f"the network returns {described(found)} for {described(wanted)} as targets: give "
                "both in one shape"
            )
        return found.reshape(wanted.shape), wanted.to(found)


def _squeezed(values: Tensor) -> tuple[int, ...]:
    """Return a shape without axes of one; a batch of one keeps that of samples."""
    if not values.ndim:
        return (1,)
    return (*values.shape[:1], *(side for side in values.shape[1:] if side != 1))
