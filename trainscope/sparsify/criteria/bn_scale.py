"""The criterion `bn-scale`: filters whose batch norm scales them down go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.errors import ActionError
from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class BatchNormScale:
    """`bn-scale`: |gamma| of the batch norm after the filter (Liu et al., "Slimming", 2017).

    Where several batch norms read the same filters, the mean of their |gamma|.
    """

    name: str = "bn-scale"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.FILTERS})

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the mean |gamma| [n], float64.

        Raises:
            ActionError: No batch norm with a scale reads the filters' outputs alone.
        """
        if not subject.scales:
            raise ActionError(
                f"no batch norm with a scale directly follows {subject.name}; bn-scale cannot rank "
                "its filters, so choose l1, l2 or random, or spare it with a ratio of 0"
            )
        return torch.stack([scale.double().abs() for scale in subject.scales]).mean(dim=0)
