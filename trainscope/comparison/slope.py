"""How fast a short stretch of a curve rises."""

from __future__ import annotations

import math
from collections.abc import Sequence


def slope(values: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope per step and its standard error.

    Args:
        values: Three or more, at equal steps.

    Raises:
        ValueError: There are fewer than three.
    """
    count = len(values)
    if count < 3:
        raise ValueError(f"a slope with an error needs three values, not {count}")
    middle, mean = (count - 1) / 2, math.fsum(values) / count
    spread = count * (count**2 - 1) / 12
    rise = math.fsum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread
    rest = math.fsum((v - mean - rise * (i - middle)) ** 2 for i, v in enumerate(values))
    return rise, math.sqrt(rest / (count - 2) / spread)
