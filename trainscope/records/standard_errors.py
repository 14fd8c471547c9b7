"""What a standard error of ours says, however few values it is from: two of them hold 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence


def widened(error: float, count: int) -> float:
    """Return a standard error widened so that two of them hold 95 % at few values.

    The spread of few values is itself hardly known. The widening is that of Student's t: 6.48 for 2
    values, 1.62 for 4, 1.21 for 8, 1.02 for 64.

    Args:
        error: The plain standard error.
        count: The number of independent values, or of jackknife groups, whose spread it is from; at
            least 2.
    """
    from scipy.special import ndtri, stdtrit  # late: who reads records needs no scipy

    return error * float(stdtrit(count - 1, 0.975) / ndtri(0.975))


def jackknife(left_out: Sequence[float]) -> float:
    """Return the widened standard error of a value from those with each part left out, [N >= 2]."""
    count = len(left_out)
    mean = math.fsum(left_out) / count
    spread = math.fsum((value - mean) ** 2 for value in left_out)
    return widened(math.sqrt((count - 1) / count * spread), count)
