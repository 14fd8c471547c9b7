"""First passages of every level, calibrated and monotone: later for a higher level, always."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainscope.convergence.asymptote import HORIZON, chances
from trainscope.convergence.calibration import Calibration, Errors
from trainscope.convergence.extrapolation import ENOUGH
from trainscope.convergence.forecast import Forecast, forecast
from trainscope.convergence.level_match import tolerance
from trainscope.convergence.passage import Floats, first_passage, running_maximum
from trainscope.convergence.stage import FirstStage

MEDIAN = 0.5
LATEST = 0.975
"""The quantile that stands for the latest passages of levels that are rarely reached."""
STEPS = 48
"""Levels of the grid between the present one and 100 %."""
PAUSE = 0.03
"""Log time for which a reference must stand still to be followed in it."""
PAUSES = 60
"""How many such pauses are followed, at most."""


@dataclass(frozen=True)
class Passages:
    """The distribution of the first passage of every level, in LR time.

    The grid of levels depends on the watched curve alone, never on the target, and every quantile
    is made to rise along it: so a higher target can never be predicted to come sooner.

    Attributes:
        stage: The watched stage.
        best: [N], its running maximum.
        levels: [M], percent, rising from the present best.
        forecast: At the levels.
        errors: The calibration.
        reach: [M], probability that each level is not out of reach for good; falling.
    """

    stage: FirstStage
    best: Floats
    levels: Floats
    forecast: Forecast
    errors: Errors
    reach: Floats

    def quantile(self, probability: float, level: float) -> float:
        """Return the time by which a level is reached with a probability.

        At most `HORIZON` times what was watched, which stands for all that is later. Where the
        level is less likely to be reached than that, the time is that of the latest passages; inf
        for a level that no run reaches.
        """
        if level <= self.best[-1]:
            return float(first_passage(self.stage.time, self.best, np.array([level]))[0])
        if level > self.levels[-1]:
            return float("inf")
        times = self.quantiles(probability)
        place = int(np.searchsorted(self.levels, level))
        low = np.log(self.stage.time[-1]) if place == 0 else times[place - 1]
        before = self.best[-1] if place == 0 else self.levels[place - 1]
        share = (level - before) / (self.levels[place] - before)
        return float(np.exp(low + share * (times[place] - low)))

    def quantiles(self, probability: float) -> Floats:
        """Return the log time by which each level of the grid is reached, [M]; never falling."""
        if probability not in self._told:  # a plan asks of each for several gains of its decays
            times = self._times(probability)
            if probability > MEDIAN:
                latest = self._times(max(probability, LATEST))
                times = np.where(probability > self.reach, latest, times)
            self._told[probability] = np.minimum(times, float(np.log(self.horizon)))
        return self._told[probability]

    @cached_property
    def _told(self) -> dict[float, Floats]:
        """Return the quantiles that were asked for, by probability."""
        return {}

    @property
    def horizon(self) -> float:
        """Return the last time that is looked at; `quantile` has it for all that is later."""
        return float(self.stage.time[-1] * HORIZON)

    def within(self, time: float, level: float) -> float:
        """Return the probability that a level is reached by a time, not before the last watched."""
        if level <= self.best[-1]:
            return 1.0
        if level > 100.0:
            return 0.0
        z = self.forecast.error(float(np.log(time)))
        by_then = self.reach * (1 - _never_falling(1 - self.errors.below(z)))
        return float(np.interp(level, self.levels, by_then))

    def _times(self, probability: float) -> Floats:
        """Return the same for levels that are reached at all, without a horizon."""
        time = self.forecast.at(float(self.errors.quantile(probability)))
        time = np.maximum(time, np.log(self.stage.time[-1]))
        middle = _never_falling(np.maximum(self.forecast.centre, np.log(self.stage.time[-1])))
        # A level's passage is no sooner than a lower one's, and no later than a higher one's.
        if probability < MEDIAN:
            time = np.minimum(np.maximum.accumulate(time), middle)
        elif probability > MEDIAN:
            time = np.maximum(np.minimum.accumulate(time[::-1])[::-1], middle)
        else:
            time = middle
        return np.asarray(time)

    def reachable(self, level: float) -> float:
        """Return the probability that a level is ever reached: by the horizon."""
        return self.within(self.horizon, level)


def passages(small: FirstStage, reference: FirstStage | None, calibration: Calibration) -> Passages:
    """Return the first passages of a watched stage.

    Args:
        small: At least one record.
        reference: The first stage of the run at a larger LR, at least two records; or None.
        calibration: Errors of forecasts whose end is known.
    """
    best = running_maximum(small.accuracy)
    top = min(float(best[-1]), 100.0 - 1e-6)
    levels = top + (100.0 - top) * (np.arange(1, STEPS + 1) / STEPS) ** 2
    if reference is not None:
        levels = np.union1d(levels, _jumps(reference, top))
    found = forecast(small, reference, levels)
    errors = calibration["loss" if found.kind == "matched" and not small.bounded else found.kind]
    if found.kind == "alone" and len(small) >= ENOUGH and small.bounded:
        seen = chances(small, levels).columns()
        reach = calibration.reach.probability(seen)
    elif found.kind != "rule":
        reach = calibration[found.kind].reached(found.in_sight)
    else:
        reach = np.ones(len(levels))
    reach = 1 - _never_falling(1 - reach)
    return Passages(small, best, levels, found, errors, reach)


def _jumps(reference: FirstStage, above: float) -> Floats:
    """Return the levels at which a reference pauses, and those just above, [2K].

    Where its running maximum stands still, the passage jumps with the level.
    """
    best = running_maximum(reference.accuracy)
    new = np.flatnonzero(np.diff(best) > 0)
    left, reached = best[new], np.log(reference.time[new])
    since = np.log(first_passage(reference.time, best, left)) if len(new) else reached
    keep = (reached - since > PAUSE) & (left + tolerance(reference) > above)
    longest = np.argsort((reached - since)[keep])[::-1][:PAUSES]
    found = np.minimum(left[keep][longest] + tolerance(reference), 100.0)
    return np.concatenate((found, np.minimum(found + 1e-6, 100.0)))


def _never_falling(values: Floats) -> Floats:
    """Return the middle between the lowest curve above and the highest below that never fall."""
    above = np.maximum.accumulate(values)
    below = np.minimum.accumulate(values[::-1])[::-1]
    return np.asarray((above + below) / 2)
