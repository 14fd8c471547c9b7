"""Gradients taken one tensor at a time: each is used as soon as it is there, and let go.

`torch.autograd.grad` returns all gradients at once, as much memory as the weights. What is wanted
of them is mostly a sum, to which each can be added right away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from trainscope.networks import undo
from trainscope.probes.subject.passes import derivative

BLOCK = 2**18  # values in float64 at once

Take = Callable[[int, Tensor], object]
"""Called with the place of a tensor and its gradient, which must not be written to or kept."""


def stream_gradient(
    outputs: Tensor | Sequence[Tensor] | Sequence[GradientEdge],
    inputs: Sequence[Tensor],
    take: Take,
    along: Tensor | Sequence[Tensor] | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
    also: Sequence[GradientEdge] = (),
) -> tuple[Tensor, ...]:
    """Hand each input's gradient on as soon as the backward pass has it whole.

    Args:
        outputs: What is differentiated; of a graph alone, its edges.
        inputs: Leaves. Of one that the outputs do not depend on nothing is handed on.
        take: Where to.
        along: The gradients at the outputs; of lone numbers 1.
        retain_graph: Keep the graph.
        create_graph: Gradients have a graph of their own; `take` may keep its edge.
        also: Places within the graph, the gradients at which are returned as they are.

    Raises:
        NotDifferentiableError: Torch, or a backward pass of the network's own, cannot do it.
        ProbeError: There is not enough memory for it.
    """

    def caught(place: int) -> Callable[[Tensor | None], Tensor | None]:
        def hook(gradient: Tensor | None) -> Tensor | None:
            if gradient is None:  # all of it was taken on the way (see `AsTheyCome`)
                return None
            take(place, gradient)
            return gradient.new_zeros(()).expand(gradient.shape)  # what the engine goes on to hold

        return hook

    # The last hook of a tensor: those of the network's own may change the gradient before.
    register: Any = Tensor.register_hook
    handles = [register(tensor, caught(i)) for i, tensor in enumerate(inputs)]
    try:
        found = derivative(
            outputs,
            [*inputs, *also],
            along,
            retain_graph=retain_graph or create_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
        return found[len(inputs) :]
    finally:
        for handle in handles:
            handle.remove()


class Total:
    """The sum of gradients that come in parts, shaped like the tensors they belong to.

    Half precision would lose what one of many parts adds. It is added up in float32, or where that
    would double what a large network takes, rounded at random, up as often as is needed for the
    mean to be right (stochastic rounding).

    Attributes:
        values: The sum so far.
    """

    def __init__(self, tensors: Sequence[Tensor], parts: int) -> None:
        """Start at zero.

        Args:
            tensors: That the gradients belong to.
            parts: How many there will be.
        """
        half = parts > 1 and any(tensor.dtype.itemsize < 4 for tensor in tensors)
        brain = all(tensor.dtype == torch.bfloat16 for tensor in tensors)
        self._at_random = half and brain and sum(tensor.nbytes for tensor in tensors) >= undo.LARGE
        wide = half and not self._at_random
        self.values = [
            torch.zeros_like(
                tensor,
                requires_grad=False,
                memory_format=torch.contiguous_format,
                dtype=torch.promote_types(tensor.dtype, torch.float32) if wide else tensor.dtype,
            )
            for tensor in tensors
        ]
        self._generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def add(self, place: int, part: Tensor) -> None:
        """Add a part to one tensor's sum."""
        total = self.values[place]
        if not self._at_random:
            total.add_(part)
            return
        rows = total.view(-1), part.detach().reshape(-1)
        for held, new in zip(*(torch.split(flat, BLOCK) for flat in rows), strict=True):
            bits = (held.float() + new.float()).view(torch.int32)
            drawn = torch.randint(
                0, 2**16, bits.shape, dtype=torch.int32, generator=self._generator
            )
            bits.add_(drawn.to(bits.device)).bitwise_and_(-(2**16))
            held.copy_(bits.view(torch.float32))


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Return the dot product of two tensors of one shape, each value and the sum in float64."""
    one, two = left.detach().reshape(-1), right.detach().reshape(-1)
    total = one.new_zeros((), dtype=torch.float64)
    for a, b in zip(torch.split(one, BLOCK), torch.split(two, BLOCK), strict=True):
        total += torch.dot(a.double(), b.double())
    return total


def squared(values: Tensor) -> Tensor:
    """Return the sum of squares, each and the sum in float64."""
    flat = values.detach().reshape(-1)
    total = flat.new_zeros((), dtype=torch.float64)
    for part in torch.split(flat, BLOCK):
        wide = part.double()
        total += torch.dot(wide, wide)
    return total
