"""The first passage of a noisy curve, and the smoothing and noise that it rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_AT_ONCE = 1_000_000
"""Pairs of times in one local fit: memory."""
WINDOW = 5
"""Records in the centred mean whose running maximum must reach the target."""


def centred_mean(values: Floats, width: int = WINDOW) -> Floats:
    """Return the mean of the `width` records around each, [N]; cut short at the two ends."""
    half = width // 2
    total = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values))
    low = np.maximum(index - half, 0)
    high = np.minimum(index + half + 1, len(values))
    mean: Floats = (total[high] - total[low]) / (high - low)
    return mean


def running_maximum(values: Floats) -> Floats:
    """Return the running maximum of the centred mean, [N]: the curve that is said to reach."""
    best: Floats = np.maximum.accumulate(centred_mean(values))
    return best


def first_passage(time: Floats, rising: Floats, level: Floats) -> Floats:
    """Return when a curve that never falls first reaches each level, interpolated; inf if never.

    Args:
        time: [N], increasing.
        rising: [N], never falling.
        level: [M].
    """
    place = np.searchsorted(rising, level - 1e-12)
    after = np.clip(place, 1, len(rising) - 1) if len(rising) > 1 else np.zeros_like(place)
    before = np.maximum(after - 1, 0)
    rise = rising[after] - rising[before]
    steep = rise > 1e-12
    share = np.where(steep, (level - rising[before]) / np.where(steep, rise, 1.0), 0.0)
    passage = time[before] + np.clip(share, 0.0, 1.0) * (time[after] - time[before])
    return np.where(place < len(rising), passage, np.inf)


def noise(values: Floats) -> float:
    """Return the standard deviation of one record about the curve, from third differences.

    Third differences take out any smooth trend; their variance is 20 times that of white noise.
    The median makes it robust to LR drops. 0 where there are fewer than 5 records.
    """
    if len(values) < 5:
        return 0.0
    differences = np.abs(np.diff(values, 3))
    return float(1.4826 * np.median(differences) / np.sqrt(20))


def local_level(
    time: Floats, values: Floats, at: Floats, bandwidth: float
) -> tuple[Floats, Floats, Floats]:
    """Fit a line in log time around each of some times.

    Args:
        time: [N], positive and increasing.
        values: [N].
        at: [M] times at which to fit.
        bandwidth: Half-width of the triangular weights, in log time; widened to at least three
            records.

    Returns:
        The level [M], the slope per unit of log time [M], and the square root of the level's
        leverage [M]: its standard error for white noise of standard deviation one.
    """
    if len(at) * len(time) > MOST_AT_ONCE:
        step = max(MOST_AT_ONCE // len(time), 1)
        parts = [
            local_level(time, values, at[i : i + step], bandwidth) for i in range(0, len(at), step)
        ]
        level, slope, leverage = (np.concatenate(column) for column in zip(*parts, strict=True))
        return level, slope, leverage
    s = np.log(time)
    offset = s[None, :] - np.log(at)[:, None]
    distance = np.abs(offset)
    third = min(3, len(s) - 1)
    reach = np.partition(distance, third, axis=1)[:, third] * 1.01
    width = np.maximum(bandwidth, reach)[:, None]
    weight = np.maximum(1.0 - distance / width, 0.0)
    total = weight.sum(1)
    first = (weight * offset).sum(1) / total
    centred = offset - first[:, None]
    spread = (weight * centred**2).sum(1)
    safe = np.where(spread > 1e-12, spread, 1.0)
    slope = np.where(spread > 1e-12, (weight * centred) @ values / safe, 0.0)
    level = (weight @ values) / total - slope * first
    influence = weight / total[:, None] - (first / safe)[:, None] * weight * centred
    return level, slope, np.sqrt((influence**2).sum(1))
