"""The axis on which estimates are made: that of the run watched, from 0 to 1.

Of epochs, steps or tokens only ratios matter. Rounding would let the unit decide all the same, in
curves that tie or stand still; on one axis for all units it cannot.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.estimate import Band, Estimate, Interval
from trainscope.convergence.passage import Floats

BITS = 36
"""To which places on the axis are rounded, far above what the unit changes in their last bits."""
DIGITS = 9
"""To which places are told again, of the epochs that are one: the rounding does not show."""


def unit_of(curve: LearningCurve) -> float:
    """Return the epochs that are one on the axis: those watched."""
    return float(curve.lr_epochs[-1]) if len(curve.lr_epochs) else 1.0


def on_axis(epochs: Floats, unit: float) -> Floats:
    """Return epochs in a unit, [N]; rounded, unless that makes two of them one."""
    exact = epochs / unit
    share, power = np.frexp(exact)
    rounded: Floats = np.ldexp(np.round(np.ldexp(share, BITS)), power - BITS)
    return rounded if len(np.unique(rounded)) == len(np.unique(exact)) else exact


def counted_in(curve: LearningCurve, unit: float) -> LearningCurve:
    """Return a curve with its epochs in another unit.

    Args:
        curve: Told over epochs, steps or tokens.
        unit: How many of them one is to stand for.
    """
    return curve.told_over(
        on_axis(curve.epochs, unit), on_axis(curve.lr_epochs, unit), curve.unit * unit
    )


def told_in(found: Estimate, unit: float) -> Estimate:
    """Return an estimate with all places and counts on the axis in epochs again."""

    def interval(of: Interval) -> Interval:
        median, low, high, horizon = (
            told(end, unit) for end in (of.median, of.low, of.high, of.horizon)
        )
        return Interval(median, low, high, horizon, of.beyond)

    band = found.curve
    return replace(
        found,
        first_passage=interval(found.first_passage),
        extra_epochs=interval(found.extra_epochs),
        lr_time_bound=None if found.lr_time_bound is None else told(found.lr_time_bound, unit),
        curve=Band(
            tuple(told(epoch, unit) for epoch in band.epochs), band.median, band.low, band.high
        ),
    )


def told(place: float, unit: float) -> float:
    """Return a place, or a count, in epochs."""
    if not math.isfinite(place):
        return place
    return round(place * unit, DIGITS - math.ceil(math.log10(unit)))
