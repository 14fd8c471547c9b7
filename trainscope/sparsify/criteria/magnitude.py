"""The criteria `l1` and `l2`: small weights go first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import Context, Subject


@dataclass(frozen=True)
class MeanAbsolute:
    """`l1`: the mean of |w| over a filter, as in Li et al., "Pruning Filters" (2017).

    Inside a layer the order is that of the sum, the L1 norm. Across layers it is not: the mean
    does not favour filters that have many weights. Public code uses both.
    """

    name: str = "l1"

    def filters(self, subject: Subject, context: Context) -> Tensor:
        """Return the mean of |w| over each row, [n], float64."""
        return subject.weight.double().abs().mean(dim=1)

    def weights(self, subject: Subject, context: Context) -> Tensor:
        """Return |w|."""
        return subject.weight.abs()


@dataclass(frozen=True)
class RootMeanSquare:
    """`l2`: the root mean square over a filter.

    Inside a layer the order is that of the L2 norm. For single weights it is |w|, as `l1`.
    """

    name: str = "l2"

    def filters(self, subject: Subject, context: Context) -> Tensor:
        """Return the root mean square of each row, [n], float64."""
        return torch.sqrt(subject.weight.double().square().mean(dim=1))

    def weights(self, subject: Subject, context: Context) -> Tensor:
        """Return |w|."""
        return subject.weight.abs()
