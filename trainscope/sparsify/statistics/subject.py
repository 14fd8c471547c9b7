"""One layer, or one group of layers that are cut together, as a criterion sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor


class Unit(StrEnum):
    """What one score is of."""

    FILTERS = "whole filters"
    WEIGHTS = "single weights"
    BLOCKS = "whole blocks"


Gather = Callable[[Mapping[str, Tensor]], Tensor]
"""Lays out values by parameter name, each shaped like its parameter, as `Subject.weight` is."""


@dataclass(frozen=True)
class Subject:
    """One layer, or one group of layers whose filters go together, as a criterion sees it.

    Attributes:
        name: The layer's name; of a group, the first layer's in forward order.
        weight: [n, k], row i holding all weights of filter i. Filters that go together count as
            one filter with the weights of all. For single weights: the weight as it is stored.
        scales: The scale [n] of each batch norm that reads the filters' outputs directly.
        parameters: The names of the parameters in `weight`, in the order of its columns.
        unit: What one score is of.
        gather: Lays out values of the parameters as `weight` is; by default those of the only one.
        mask: For single weights: True where one is there still; None where all are.
        turned: The weight is stored as [inputs, outputs].
        groups: Of a grouped convolution.
    """

    name: str
    weight: Tensor
    scales: tuple[Tensor, ...] = ()
    parameters: tuple[str, ...] = ()
    unit: Unit = Unit.FILTERS
    gather: Gather | None = None
    mask: Tensor | None = None
    turned: bool = False
    groups: int = 1

    def laid_out(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return values by parameter name in the layout of `weight`."""
        if self.gather is not None:
            return self.gather(values)
        return values[self.parameters[0]].view_as(self.weight)

    def total(self, values: Tensor) -> Tensor:
        """Return single weights' values as they are; of filters and blocks their sums, [n]."""
        return values if self.unit is Unit.WEIGHTS else values.flatten(1).sum(1)

    def rows(self, values: Tensor) -> Tensor:
        """Return single weights' values as [outputs, weights of one], as a product has them."""
        return values.T if self.turned else values.flatten(1)

    def stored(self, rows: Tensor) -> Tensor:
        """Undo `rows`."""
        return rows.T.contiguous() if self.turned else rows.reshape(self.weight.shape)

    def parts(self, values: Tensor) -> Tensor:
        """Return single weights' values by group, [groups, outputs of one, weights of one]."""
        rows = self.rows(values)
        return rows.reshape(self.groups, -1, rows.shape[1])

    def consecutive(self) -> Tensor:
        """Return the columns of `rows` with consecutive inputs, at one kernel place, together."""
        if self.weight.ndim < 3:
            return torch.arange(self.weight.shape[0 if self.turned else 1])
        inputs = self.weight.shape[1]
        places = self.weight[0].numel()
        return torch.arange(places).view(inputs, -1).T.flatten()

    def with_weight(self, weight: Tensor) -> Subject:
        """Return the same with other values."""
        return replace(self, weight=weight)
