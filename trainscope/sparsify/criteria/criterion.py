"""What a criterion is shown and what it must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subject:
    """One layer, or one group of layers whose filters go together, as a criterion sees it.

    Attributes:
        name: The layer's name; of a group, the first layer's in forward order.
        weight: [n, k], row i holding all weights of filter i. Filters that go together count as
            one filter with the weights of all. For single weights: the weight as it is stored.
        scales: The scale [n] of each batch norm that reads the filters' outputs directly.
        parameters: The names of the parameters in `weight`, in the order of its columns.
    """

    name: str
    weight: Tensor
    scales: tuple[Tensor, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a criterion may draw on beside the weights.

    Attributes:
        generator: The source of random numbers (CPU); layers come in forward order.
        gradients: The loss gradient by parameter name, on pinned samples, for criteria that
            need data. Empty now: the action is given none yet.
    """

    generator: torch.Generator
    gradients: Mapping[str, Tensor] = field(default_factory=dict)


class Criterion(Protocol):
    """A score for every filter or weight; the lowest are pruned.

    Scores are compared inside one layer, and across layers under a global ranking.
    """

    @property
    def name(self) -> str:
        """The name a person types."""

    def filters(self, subject: Subject, context: Context) -> Tensor:
        """Return the scores [n] of the rows of `subject.weight`."""

    def weights(self, subject: Subject, context: Context) -> Tensor:
        """Return the scores of single weights, in the shape of `subject.weight`."""
