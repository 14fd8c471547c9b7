"""The criterion `fpgm`: filters that lie nearest to the middle of their layer's go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class GeometricMedian:
    """`fpgm`: the sum of Euclidean distances to all other filters of the layer.

    He et al., "Filter Pruning via Geometric Median" (2019), equation 6: filters near the geometric
    median can be replaced by the others. Sums grow with the number of filters, so two layers do
    not compare.
    """

    name: str = "fpgm"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.FILTERS})
    comparable: ClassVar[bool] = False

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the sums of distances [n], float64."""
        rows = subject.weight.double()
        # Not by way of |a|^2 + |b|^2 - 2ab, which loses the distance of filters that are alike.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(rows, rows, compute_mode=exact).sum(dim=1)
