"""The criterion `snip`: connections to which the loss is least sensitive go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.criteria.criterion import Ranks
from trainscope.sparsify.statistics import Statistic, Statistics, Subject


@dataclass(frozen=True)
class ConnectionSensitivity:
    """`snip`: |g w|, summed over a filter.

    Lee et al., "SNIP" (2019), equation 5, ranked over the whole network as the authors do; they
    divide by the sum over all weights, which changes no order. They prune before training.
    """

    name: str = "snip"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.GRADIENT})
    ranks: ClassVar[Ranks] = "network"

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the sensitivity, float64."""
        gradient = statistics.of(Statistic.GRADIENT, subject)
        return subject.total((gradient * subject.weight.double()).abs())
