"""The shape of one input of a network that nobody describes, found by trying."""

from __future__ import annotations

import math

from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.forward import check_forward

GUESSED = "Its input shape was found by trying"
"""How a note begins that goes once the data says the shape."""
_LARGE, _SMALL = (224, 299, 256, 384), (32, 28, 8, 64)


def guess_input_shape(module: nn.Module) -> tuple[int, ...]:
    """Return the first usual image shape that a network takes, (C, H, W).

    A network with an `input_shape` of its own is believed. Else the channels are those of its first
    convolution, and sizes are tried: 224 first where that convolution has a stride, 32 first where
    it has none. A network of linear layers gets the square image of one or three channels that
    has as many values as its first layer takes, else (1, 1, values).

    Raises:
        CheckpointError: It takes none of them.
    """
    said = getattr(module, "input_shape", None)
    if isinstance(said, list | tuple) and said and all(isinstance(n, int) for n in said):
        return tuple(said)
    for shape in _candidates(module):
        try:
            check_forward(module, shape, "the network", regroup=True)
        except CheckpointError:
            continue
        return shape
    raise CheckpointError(
        "the shape of the network's inputs is not to be found, for none that was tried gives "
        "logits of shape [samples, classes]: say it with --input-shape CxHxW, give its class an "
        "attribute input_shape = (C, H, W), or name the task and the data where the network is no "
        "classifier (--task, --data)"
    )


def _candidates(module: nn.Module) -> list[tuple[int, ...]]:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            strided = max(part.stride) > 1
            sizes = _LARGE + _SMALL if strided else _SMALL + _LARGE
            return [(part.weight.shape[1] * part.groups, size, size) for size in sizes]
        if isinstance(part, nn.Linear):
            values = part.weight.shape[1]
            squares = [(c, math.isqrt(values // c)) for c in (1, 3) if values % c == 0]
            images = [(c, side, side) for c, side in squares if c * side * side == values]
            return [*images, (1, 1, values)]
    return []
