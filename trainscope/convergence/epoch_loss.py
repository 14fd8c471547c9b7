"""From the mean of a loss over an epoch to the loss at its end, where the accuracy is measured.

Most training loops log the mean over the epoch. In the first epochs the loss falls by half and more
in each, and a mean is the loss of the middle: half an epoch early, which is much in log time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def loss_at_ends(means: Sequence[float | None], rates: Sequence[float]) -> list[float | None]:
    """Return the loss at the end of each epoch.

    The end lies halfway to the next epoch's middle, in log loss, where the LR is the same; at the
    end of a stage, as far on as it was from the epoch before. A single epoch stays as it is.

    Args:
        means: Over consecutive epochs, nats; None where it is not known.
        rates: The LR of each.
    """
    x = np.array([np.nan if value is None else value for value in means], dtype=np.float64)
    lr = np.array(rates, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.where(np.isfinite(x) & (x > 0), np.log(x), np.nan)
    step = np.diff(log) / 2
    step = np.where((np.diff(lr) == 0) & np.isfinite(step), step, np.nan)
    ahead, before = np.append(step, np.nan), np.append(np.nan, step)
    moved = np.where(np.isfinite(ahead), ahead, np.where(np.isfinite(before), before, 0.0))
    with np.errstate(over="ignore"):
        ends = np.where(np.isfinite(log), np.exp(log + moved), x)
    return [None if np.isnan(value) else float(value) for value in ends]
