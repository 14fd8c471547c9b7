"""Measuring a network on a test half."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainscope.data import Split

TEST_BATCH = 512
"""Test samples put forward at once."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A network on a test half.

    Attributes:
        loss: Mean cross-entropy, nats; None where it is not finite.
        correct: [N], True where the largest logit is the label's.
    """

    loss: float | None
    correct: Tensor

    @property
    def accuracy(self) -> float:
        """Return the top-1 accuracy, percent."""
        return 100.0 * float(self.correct.double().mean())


@torch.no_grad()
def evaluate(network: nn.Module, split: Split, *, batch_size: int = TEST_BATCH) -> Evaluation:
    """Measure a network, in eval mode, on a test half, on the device where it is.

    Modes are put back, also when it raises. The network gets copies, into which it may write.
    """
    weight = next(network.parameters(), torch.empty(0))
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    losses, correct = [], []
    try:
        for indices in torch.split(torch.arange(len(split)), batch_size):
            inputs, labels = split.batch(indices)
            logits = network(inputs.to(weight, copy=True)).double()
            labels = labels.to(logits.device)
            losses.append(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            correct.append(logits.argmax(1) == labels)
    finally:
        for module, mode in modes:
            module.training = mode
    mean = math.fsum(torch.stack(losses).tolist()) / len(split)
    return Evaluation(mean if math.isfinite(mean) else None, torch.cat(correct).cpu())
