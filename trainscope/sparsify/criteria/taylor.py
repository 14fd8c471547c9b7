"""The criteria `taylor` and `taylor2`: what the loss does without a weight, by its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.statistics import Statistic, Statistics, Subject


@dataclass(frozen=True)
class Taylor:
    """`taylor`: (sum of g w over a filter)^2, of a single weight (g w)^2.

    Molchanov et al., "Importance Estimation for Neural Network Pruning" (2019), equation 8: the
    square of the first-order change of the loss without the filter, with all of its weights. g is
    the gradient of the mean loss over all pinned samples, one minibatch in the authors' terms.
    """

    name: str = "taylor"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.GRADIENT})

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the squared first-order change, float64."""
        gradient = statistics.of(Statistic.GRADIENT, subject)
        return subject.total(gradient * subject.weight.double()).square()


@dataclass(frozen=True)
class SecondTaylor:
    """`taylor2`: (sum of g w - w (H w) / 2 over a filter)^2.

    The same, equation 5: H w is the product of the loss's Hessian with all parameters.
    """

    name: str = "taylor2"
    needs: ClassVar[frozenset[Statistic]] = frozenset(
        {Statistic.WEIGHT, Statistic.GRADIENT, Statistic.HESSIAN_WEIGHT}
    )

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the squared second-order change, float64."""
        gradient = statistics.of(Statistic.GRADIENT, subject)
        product = statistics.of(Statistic.HESSIAN_WEIGHT, subject)
        weight = subject.weight.double()
        return subject.total(gradient * weight - weight * product / 2).square()
