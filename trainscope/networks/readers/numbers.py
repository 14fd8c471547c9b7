"""Numbers that training scripts save in many forms: plain, or as tensors of one element."""

from __future__ import annotations

import math

from torch import Tensor


def number_of(value: object) -> float | None:
    """Return a finite number, or None where the value is not one."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def whole_of(value: object) -> int | None:
    """Return a whole number that is not negative, or None."""
    number = number_of(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def accuracy_of(value: object) -> float | None:
    """Return an accuracy in percent, or None where it cannot be one in percent.

    A value from 0 to 1 may be a share or a very bad accuracy; it is left out.
    """
    number = number_of(value)
    return number if number is not None and 1.0 < number <= 100.0 else None
