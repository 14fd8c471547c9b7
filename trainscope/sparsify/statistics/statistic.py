"""Statistics that a criterion can ask for by name, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from trainscope.sparsify.statistics.subject import Subject


class Statistic(StrEnum):
    """What is known of every weight beside its value.

    With the loss L, the mean over all loss terms of the pinned samples in eval mode, and N samples:

    - `WEIGHT`: its value, which every criterion has;
    - `GRADIENT`: dL/dw;
    - `SQUARED_GRADIENT`: the mean over samples of (dL_i/dw)^2, where L_i is N / terms times the sum
      of sample i's loss terms, so that the mean of the L_i is L: the empirical Fisher's diagonal;
    - `HESSIAN_GRADIENT`: H g, Hessian and gradient by the weights of all layers that multiply;
    - `HESSIAN_WEIGHT`: H w, Hessian by all parameters, times these;
    - `HESSIAN_DIAGONAL`: the diagonal of H, by Hutchinson's estimator;
    - `INPUT_NORM`: of a layer, the root of the sum of squares of each input, [groups, k];
    - `INPUT_GRAM`: of a layer, X'X of its inputs X [places, k], [groups, k, k];
    - `FLOW`: the derivative of SynFlow's objective by the weights' magnitudes, which takes no data.
    """

    WEIGHT = "weight"
    GRADIENT = "gradient"
    SQUARED_GRADIENT = "squared gradient"
    HESSIAN_GRADIENT = "Hessian times gradient"
    HESSIAN_WEIGHT = "Hessian times weights"
    HESSIAN_DIAGONAL = "Hessian diagonal"
    INPUT_NORM = "input norm"
    INPUT_GRAM = "input Gram"
    FLOW = "synaptic flow"


OF_INPUTS = frozenset({Statistic.INPUT_NORM, Statistic.INPUT_GRAM})
"""Statistics of layers, which only those have whose inputs are seen."""
FROM_DATA = frozenset(Statistic) - {Statistic.WEIGHT, Statistic.FLOW}
"""Statistics that take samples."""


@dataclass(frozen=True)
class Statistics:
    """What a criterion may draw on beside the weights.

    Attributes:
        generator: The source of random numbers (CPU); layers come in forward order.
        values: By statistic and parameter name, float64.
    """

    generator: torch.Generator
    values: Mapping[Statistic, Mapping[str, Tensor]] = field(default_factory=dict)

    def of(self, statistic: Statistic, subject: Subject) -> Tensor:
        """Return a statistic of weights, in the layout of `subject.weight`."""
        return subject.laid_out(self.values[statistic])

    def inputs(self, statistic: Statistic, subject: Subject) -> Tensor:
        """Return a statistic of a layer's inputs, [groups, k] or [groups, k, k]."""
        return self.values[statistic][subject.parameters[0]]
