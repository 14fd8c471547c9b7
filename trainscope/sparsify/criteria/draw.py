"""The criterion `random`: the baseline that any other must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import Context, Subject


@dataclass(frozen=True)
class Random:
    """`random`: independent uniform scores, from the action's seed and nothing else."""

    name: str = "random"

    def filters(self, subject: Subject, context: Context) -> Tensor:
        """Return uniform scores [n], float64."""
        count = len(subject.weight)
        return torch.rand(count, generator=context.generator, dtype=torch.float64)

    def weights(self, subject: Subject, context: Context) -> Tensor:
        """Return uniform scores in the shape of the weight."""
        shape = subject.weight.shape
        drawn = torch.rand(shape, generator=context.generator, dtype=torch.float64)
        return drawn.to(subject.weight.device)
