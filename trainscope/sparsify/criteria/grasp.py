"""The criterion `grasp`: weights go first without which the gradient's norm grows most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.criteria.criterion import Ranks
from trainscope.sparsify.statistics import Statistic, Statistics, Subject


@dataclass(frozen=True)
class GradientSignal:
    """`grasp`: w (H g), summed over a filter: minus the authors' score, whose highest go.

    Wang et al., "Picking Winning Tickets Before Training" (2020), equation 8: without w the squared
    norm of the gradient changes by -2 w (H g), to first order. Ranked over the whole network, as
    there. The authors divide the logits by a temperature of 200, which is for networks before
    training, and is not done here.
    """

    name: str = "grasp"
    needs: ClassVar[frozenset[Statistic]] = frozenset(
        {Statistic.WEIGHT, Statistic.HESSIAN_GRADIENT}
    )
    ranks: ClassVar[Ranks] = "network"

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the score, float64."""
        product = statistics.of(Statistic.HESSIAN_GRADIENT, subject)
        return subject.total(product * subject.weight.double())
