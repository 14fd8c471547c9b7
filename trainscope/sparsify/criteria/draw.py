"""The criterion `random`: the baseline that any other must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class Random:
    """`random`: independent uniform scores, from the action's seed and nothing else."""

    name: str = "random"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return uniform scores, float64."""
        weights = subject.unit is Unit.WEIGHTS
        shape = subject.weight.shape if weights else subject.weight.shape[:1]
        drawn = torch.rand(shape, generator=statistics.generator, dtype=torch.float64)
        return drawn.to(subject.weight.device)
