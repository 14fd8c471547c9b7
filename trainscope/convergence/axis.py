"""The axis on which estimates are made: that of the run watched, from 0 to 1.

Of epochs, steps or tokens only ratios matter. Rounding would let the unit decide all the same, in
curves that tie or stand still; on one axis for all units it cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.estimate import Band, Estimate, Interval
from trainscope.convergence.passage import Floats

BITS = 36
"""To which places on the axis are rounded, far above what the unit changes in their last bits."""
NEAR = 2e-11
"""Share of a place, or of what was watched, by which that rounding may move it."""
DIGITS = 9
"""Of a number that a place is told as, where it lies as near to it as that."""


@dataclass(frozen=True)
class Axis:
    """Places on the axis, and back.

    Attributes:
        unit: The epochs that are one on the axis: those watched.
        known: [N], epochs of the records, in order: what is told of a record is its epoch.
    """

    unit: float
    known: Floats

    @classmethod
    def of(cls, curve: LearningCurve) -> Axis:
        """Return the axis of the run that is watched."""
        known = np.union1d(curve.epochs, curve.lr_epochs)
        return cls(float(curve.lr_epochs[-1]) if len(curve.lr_epochs) else 1.0, known)

    def places(self, epochs: Floats) -> Floats:
        """Return epochs in units of the axis, [N]; rounded, unless that makes two of them one."""
        exact = epochs / self.unit
        share, power = np.frexp(exact)
        rounded: Floats = np.ldexp(np.round(np.ldexp(share, BITS)), power - BITS)
        return rounded if len(np.unique(rounded)) == len(np.unique(epochs)) else exact

    def curve(self, curve: LearningCurve) -> LearningCurve:
        """Return a curve told over the axis."""
        every = np.union1d(curve.epochs, curve.lr_epochs)
        places = self.places(every)
        return curve.told_over(
            places[np.searchsorted(every, curve.epochs)],
            places[np.searchsorted(every, curve.lr_epochs)],
            self.unit,
        )

    def told(self, place: float) -> float:
        """Return a place, or a count, in epochs, without what the rounding did to it."""
        epoch = place * self.unit
        if not math.isfinite(epoch) or epoch == 0:
            return epoch
        if len(self.known):
            nearest = float(self.known[int(np.argmin(np.abs(self.known - epoch)))])
            if abs(nearest - epoch) <= NEAR * abs(epoch):
                return nearest
        plain = float(f"{epoch:.{DIGITS}g}")
        return plain if abs(plain - epoch) <= NEAR * max(abs(epoch), self.unit) else epoch

    def estimate(self, found: Estimate) -> Estimate:
        """Return an estimate with all places and counts in epochs."""
        band, bound = found.curve, found.lr_time_bound
        return replace(
            found,
            first_passage=self._interval(found.first_passage),
            extra_epochs=self._interval(found.extra_epochs),
            lr_time_bound=None if bound is None else self.told(bound),
            curve=Band(tuple(map(self.told, band.epochs)), band.median, band.low, band.high),
        )

    def _interval(self, of: Interval) -> Interval:
        return replace(
            of,
            median=self.told(of.median),
            low=self.told(of.low),
            high=self.told(of.high),
            horizon=self.told(of.horizon),
        )
