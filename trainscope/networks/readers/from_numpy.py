"""Numpy's arrays in a pickle, weights and masks by name, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainscope.networks.described import Described
from trainscope.networks.readers.numpy_values import Array, Dtype

_DEPTH = 4
"""Keys over each other below which arrays may be weights."""


def with_tensors(obj: Any, depth: int = 0) -> Any:
    """Return objects with the arrays in them as tensors, where these are weights or masks.

    They are where a dictionary by names, or a list, holds nothing but arrays and tensors, one of
    them with two dimensions or more: the history of a training, or a random state, stays what it
    is.

    Raises:
        ValueError: An array has more or fewer bytes than its shape says.
    """
    if depth > _DEPTH or not isinstance(obj, Mapping | list | tuple):
        return obj
    held = list(obj.values()) if isinstance(obj, Mapping) else list(obj)
    if any(isinstance(each, Array) for each in held) and all(map(_is_values, held)):
        made = [_tensor(each) if isinstance(each, Array) else each for each in held]
        wide = any(isinstance(each, Tensor) and each.ndim > 1 for each in made)
        if wide and not any(isinstance(each, Array) for each in made):
            return dict(zip(obj, made, strict=True)) if isinstance(obj, Mapping) else made
        return obj
    if not isinstance(obj, Mapping):
        return obj
    inside = [with_tensors(each, depth + 1) for each in held]
    if all(new is old for new, old in zip(inside, held, strict=True)):
        return obj
    return dict(zip(obj, inside, strict=True))


def _is_values(value: object) -> bool:
    return value is None or isinstance(value, Array | Tensor | Described)


def _tensor(array: Array) -> Tensor | Array:
    """Return an array of numbers as a tensor of its own dtype; what holds none as it is."""
    numbers = array.numbers()
    if numbers is None or not isinstance(array.dtype, Dtype):
        return array
    return torch.from_numpy(np.array(numbers.astype(array.dtype.letters), order="C"))
