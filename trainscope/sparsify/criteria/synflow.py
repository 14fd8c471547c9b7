"""The criterion `synflow`: what carries least through the network goes first, in many rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.errors import ActionError
from trainscope.sparsify.criteria.criterion import Ranks
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class SynapticFlow:
    """`synflow`: |w| dR/d|w|, summed over a filter, in 100 rounds; it needs no data.

    Tanaka et al., "Pruning neural networks without any data" (2020): R is the sum of the outputs of
    the linear network of magnitudes for inputs of ones; after round k of n a share of
    (1 - ratio)^(k/n) is left. Ranked over the whole network, as there. The scores of a layer that
    all paths cross sum up to R.

    Attributes:
        rounds: How many rounds; the authors' number is 100.
    """

    rounds: int = 100
    name: ClassVar[str] = "synflow"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.FLOW})
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.FILTERS, Unit.WEIGHTS})
    ranks: ClassVar[Ranks] = "network"

    def __post_init__(self) -> None:
        """Check the rounds."""
        if self.rounds < 1:
            raise ActionError(f"synflow: rounds is {self.rounds}; give at least 1")

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the synaptic saliency, float64."""
        flow = statistics.of(Statistic.FLOW, subject)
        return subject.total(flow * subject.weight.double().abs())
