"""The criteria `fisher` and `obd`: diagonal curvature times the square of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.statistics import Statistic, Statistics, Subject


@dataclass(frozen=True)
class Fisher:
    """`fisher`: w^2 / 2 times the mean over samples of the squared gradient, summed over a filter.

    LeCun et al., "Optimal Brain Damage" (1990), with the empirical Fisher information's diagonal in
    the Hessian's place, as Theis et al., "Faster Gaze Prediction" (2018).
    """

    name: str = "fisher"
    needs: ClassVar[frozenset[Statistic]] = frozenset(
        {Statistic.WEIGHT, Statistic.SQUARED_GRADIENT}
    )

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the saliency, float64."""
        squares = statistics.of(Statistic.SQUARED_GRADIENT, subject)
        return subject.total(squares * subject.weight.double().square() / 2)


@dataclass(frozen=True)
class Damage:
    """`obd`: w^2 / 2 times the Hessian's own diagonal, summed over a filter.

    LeCun et al. (1990), equation 5. They take the Gauss-Newton part of the diagonal, by a backward
    pass of its own; here it is the whole Hessian's, by Hutchinson's estimator of 64 draws, which
    is noisy. Where it is negative the loss falls without the weight, so such weights go first.
    """

    name: str = "obd"
    needs: ClassVar[frozenset[Statistic]] = frozenset(
        {Statistic.WEIGHT, Statistic.HESSIAN_DIAGONAL}
    )

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the saliency, float64."""
        diagonal = statistics.of(Statistic.HESSIAN_DIAGONAL, subject)
        return subject.total(diagonal * subject.weight.double().square() / 2)
