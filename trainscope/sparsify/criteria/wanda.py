"""The criterion `wanda`: small weights of small inputs go first, in each output row alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.criteria.criterion import Ranks
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class Wanda:
    """`wanda`: |w| times the norm of the weight's input over all samples and places.

    Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (2024), equation
    1. Weights are ranked inside an output row, the authors' comparison group: each row loses as
    many, up to one. The inputs are those of the network before any layer is pruned.
    """

    name: str = "wanda"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.INPUT_NORM})
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.WEIGHTS})
    ranks: ClassVar[Ranks] = "row"
    comparable: ClassVar[bool] = False

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return |w| times the input's norm, float64."""
        weights = subject.parts(subject.weight).double().abs()
        norms = statistics.inputs(Statistic.INPUT_NORM, subject)
        return subject.stored((weights * norms.unsqueeze(1)).flatten(0, 1))
