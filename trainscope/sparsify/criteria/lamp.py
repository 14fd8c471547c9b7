"""The criterion `lamp`: magnitudes that compare across layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY, Ranks
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class LayerAdaptiveMagnitude:
    """`lamp`: w^2 over the sum of the squares of all weights of the layer that are not smaller.

    Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (2021), equation 4, ranked
    over the whole network: inside a layer the order is that of |w|.
    """

    name: str = "lamp"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.WEIGHTS})
    ranks: ClassVar[Ranks] = "network"

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the score, float64; at most 1, which the largest weight has."""
        squares = subject.weight.double().square().flatten()
        # Of equal ones the first are kept, so they count as the larger ones.
        order = squares.flip(0).argsort(stable=True)
        ordered = squares.flip(0)[order]
        left = ordered.flip(0).cumsum(0).flip(0)
        scores = ordered / left.clamp_min(left.new_tensor(1e-300))
        found = scores.new_empty(scores.shape)
        found[order] = scores
        return found.flip(0).view_as(subject.weight)
