"""What all ways to differentiate single samples share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import with_samples
from trainscope.probes.subject.parameters import Measured
from trainscope.task import Batch, Outputs
from trainscope.task.batches import tensors

Cotangents = Callable[[Outputs, Batch], Sequence[Sequence[Tensor]]]
"""From outputs to R gradients at those of their tensors that count, [N, ...] each."""

Loss = Callable[[Outputs, Batch], tuple[Tensor, Tensor]]
"""From outputs and batch to the sum of the terms of the loss and their number."""

Moments = tuple[Tensor, Tensor, list[Tensor]]
"""Squares [parameters, N], dots with the mean [N], and the mean, shaped like the parameters."""


class NoRuleError(Exception):
    """The network is differentiated in a way that is not known here.

    Attributes:
        modules: The layers that it uses in such a way, where it is known which.
    """

    def __init__(self, modules: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.modules = tuple(modules)


class Samples:
    """A network, its samples, and what is measured.

    Args:
        lent: The network and data.
        measured: The parameters; all used by the loss.
        places: Which of the outputs' tensors count.
    """

    def __init__(self, lent: Lent, measured: Measured, places: Sequence[int] = (0,)) -> None:
        self.lent, self.measured, self.places = lent, measured, tuple(places)

    def counted(self, outputs: Outputs) -> list[Tensor]:
        """Return the tensors of the outputs that count, with an axis of samples."""
        found = tensors(outputs)
        return [with_samples(found[place]) for place in self.places]

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros to add to, in float64."""
        return self.lent.weight.new_zeros(shape, dtype=torch.float64)
