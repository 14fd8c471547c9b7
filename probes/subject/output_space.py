"""The loss as a function of the network's outputs: its gradient and its second derivative there.

Everything that leads from a loss to the weights and is not the network goes through here, so that
it holds for any task. The softmax cross-entropy has rules of its own, which are held against this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainscope.errors import ProbeError
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.passes import derivative
from trainscope.task import Batch, Outputs
from trainscope.task.batches import described, tensors
from trainscope.task.trees import flattened


@dataclass(frozen=True)
class OutputSpace:
    """The sum of a batch's loss terms around the outputs that a network gave.

    Attributes:
        lent: The network and data.
        outputs: What the network returned; graphs of its own do not matter.
        batch: The samples.
    """

    lent: Lent
    outputs: Outputs
    batch: Batch

    @cached_property
    def places(self) -> list[int]:
        """Return which of the outputs' tensors the loss depends on."""
        return self._made[0]

    @property
    def leaves(self) -> list[Tensor]:
        """Return these tensors, with the graphs that they came with."""
        found = tensors(self.outputs)
        return [found[place] for place in self.places]

    @cached_property
    def gradient(self) -> list[Tensor]:
        """Return the gradient of the sum of the terms at each of these tensors, [N, ...] each."""
        return [with_samples(slope.detach()) for slope in self._made[2]]

    @property
    def linear(self) -> bool:
        """Tell whether the loss is linear in what the network returned."""
        return not self.lent.softmax and not any(slope.requires_grad for slope in self._made[2])

    def curved(self, moved: list[Tensor]) -> list[Tensor]:
        """Return the second derivative of the sum of the terms times a change of these tensors."""
        if self.lent.softmax:
            (logits,) = self.leaves
            p = logits.detach().softmax(1)
            (v,) = moved
            return [p * (v - (p * v).sum(1, keepdim=True))]
        _, points, slopes = self._made
        live = [i for i, slope in enumerate(slopes) if slope.requires_grad]
        if not live:  # the loss is linear in the outputs
            return [torch.zeros_like(point) for point in points]
        return list(
            derivative(
                [slopes[i] for i in live],
                points,
                [moved[i] for i in live],
                retain_graph=True,
                materialize_grads=True,
            )
        )

    @cached_property
    def _made(self) -> tuple[list[int], list[Tensor], list[Tensor]]:
        """Return the places, fresh tensors in them, and the gradient there with its graph."""
        leaves, structure = flattened(self.outputs)
        where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        fresh = {
            i: leaves[i].detach().requires_grad_() for i in where if leaves[i].is_floating_point()
        }
        parted = structure.holding([fresh.get(i, leaf) for i, leaf in enumerate(leaves)])
        with torch.enable_grad():
            total = self.lent.losses(parted, self.batch).sum()
        found: tuple[Tensor | None, ...] = ()
        if fresh and total.requires_grad:
            found = derivative(total, list(fresh.values()), create_graph=True, allow_unused=True)
        used = [(i, slope) for i, slope in zip(fresh, found, strict=False) if slope is not None]
        if fresh and not total.requires_grad:
            raise ProbeError(
                "the loss has no derivative by the network's outputs: it was detached, made a "
                "plain number (.item()), or takes none of them; let it return the tensor"
            )
        if not used:
            raise ProbeError(
                "the loss does not depend on a tensor of the network's outputs, which are "
                f"{described(self.outputs)}: return tensors, or tuples or dictionaries of them"
            )
        places = [where.index(i) for i, _ in used]
        return places, [fresh[i] for i, _ in used], [slope for _, slope in used]


def with_samples(values: Tensor) -> Tensor:
    """Return values with an axis of samples: a lone number as [1]."""
    return values.reshape(1) if values.ndim == 0 else values
