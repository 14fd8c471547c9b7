"""Which value of a mask keeps a weight, 1 or 0, told by the weights that are stored beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainscope.errors import CheckpointError

_LEAST = 4
"""Weights on either side of a mask that a layer's zeros must have to speak for themselves."""

_LARGER = 1.5
"""How many times larger dropped weights are, in the mean, than kept ones, to be spoken of."""

INVERTED = (
    "Its masks are 1 where a weight is pruned: there the stored weights are zero, and elsewhere "
    "they are not. They were read so."
)


@dataclass(frozen=True)
class _Layer:
    """Weights that are not zero, by what their mask says, and how large they are."""

    zeros: int
    ones: int
    at_zero: int
    at_one: int
    size_at_zero: float
    size_at_one: float

    @property
    def clear(self) -> bool:
        return min(self.zeros, self.ones) >= _LEAST

    @property
    def inverted(self) -> bool:
        return self.at_one == 0 < self.at_zero

    @property
    def usual(self) -> bool:
        return self.at_zero == 0 < self.at_one


def survivors(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return boolean masks that are True where a weight survives, and what to say of the reading.

    A 1 keeps its weight, as in `torch.nn.utils.prune`, unless every stored weight is zero where
    the masks are 1 and some are not where they are 0: read the usual way, nothing would be left.

    Args:
        masks: Zeros and ones by the name of the weight.
        weights: As they are stored, of the masks' shapes.

    Raises:
        CheckpointError: The zeros of one weight say that 1 keeps it, and another's that 0 does.
    """
    kept = {name: mask.bool() for name, mask in masks.items()}
    layers = {name: _layer(mask, weights[name]) for name, mask in kept.items()}
    at_one = sum(layer.at_one for layer in layers.values())
    at_zero = sum(layer.at_zero for layer in layers.values())
    if at_one == 0 < at_zero:
        return {name: ~mask for name, mask in kept.items()}, (INVERTED,)
    turned = next((n for n, layer in layers.items() if layer.clear and layer.inverted), None)
    usual = next((n for n, layer in layers.items() if layer.clear and layer.usual), None)
    if turned is not None and usual is not None:
        raise CheckpointError(
            f"the masks contradict each other: '{turned}' is zero where its mask is 1, and "
            f"'{usual}' where it is 0; save masks that are 1 where a weight survives"
        )
    sizes = [layer for layer in layers.values() if layer.clear and layer.at_zero]
    if not sizes:
        return kept, ()
    dropped = sum(layer.size_at_zero for layer in sizes) / len(sizes)
    held = sum(layer.size_at_one for layer in sizes) / len(sizes)
    if dropped > _LARGER * held:
        return kept, (
            f"The weights under a mask's 0 are stored as well, and are {_times(dropped, held)} as "
            "large in the mean as those under a 1. A 1 was read as a weight that survives; if it "
            "means pruned, save the masks the other way round.",
        )
    return kept, ()


def _layer(mask: Tensor, weight: Tensor) -> _Layer:
    mask, size = mask.to(weight.device), weight.detach().abs()
    ones = int(mask.sum())
    zeros = mask.numel() - ones
    held = torch.where(mask, size, 0)
    whole, at_one = int(size.count_nonzero()), int(held.count_nonzero())
    mean = float(size.double().mean()) or 1.0
    total, kept = float(size.double().sum()) / mean, float(held.double().sum()) / mean
    return _Layer(
        zeros=zeros,
        ones=ones,
        at_zero=whole - at_one,
        at_one=at_one,
        size_at_zero=(total - kept) / max(zeros, 1),
        size_at_one=kept / max(ones, 1),
    )


def _times(dropped: float, held: float) -> str:
    return f"{dropped / held:.1f} times" if held else "many times"
