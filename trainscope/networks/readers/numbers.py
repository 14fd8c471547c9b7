"""Numbers that training scripts save in many forms: plain, or as tensors of one element."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST = 2**64
"""A whole number beyond it counts nothing that a training has: 64 bits hold every seed."""

_NUMBERS = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)


def number_of(value: object) -> float | None:
    """Return a finite number, or None where the value is not one."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.dtype in _NUMBERS:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def whole_of(value: object) -> int | None:
    """Return a whole number that is not negative, or None."""
    number = number_of(value)
    if number is None or not 0 <= number <= LARGEST or number != int(number):
        return None
    return value if isinstance(value, int) else int(number)


def accuracy_of(value: object) -> float | None:
    """Return an accuracy in percent, or None where it cannot be one in percent.

    A value from 0 to 1 may be a share or a very bad accuracy; it is left out.
    """
    number = number_of(value)
    return number if number is not None and 1.0 < number <= 100.0 else None
