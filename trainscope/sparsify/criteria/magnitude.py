"""The criteria `l1` and `l2`: small weights go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class MeanAbsolute:
    """`l1`: the mean of |w| over a filter, as in Li et al., "Pruning Filters" (2017).

    Inside a layer the order is that of the sum, the L1 norm. Across layers it is not: the mean
    does not favour filters that have many weights. Public code uses both. Of a weight: |w|.
    """

    name: str = "l1"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the mean of |w| over each row, [n], float64; of weights |w|."""
        if subject.unit is Unit.WEIGHTS:
            return subject.weight.abs()
        return subject.weight.double().abs().mean(dim=1)


@dataclass(frozen=True)
class RootMeanSquare:
    """`l2`: the root mean square over a filter.

    Inside a layer the order is that of the L2 norm. For single weights it is |w|, as `l1`.
    """

    name: str = "l2"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the root mean square of each row, [n], float64; of weights |w|."""
        if subject.unit is Unit.WEIGHTS:
            return subject.weight.abs()
        return torch.sqrt(subject.weight.double().square().mean(dim=1))
