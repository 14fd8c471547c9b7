"""The forecast of first passages: matched levels and the curve's own trend, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainscope.convergence.backtest import backtest
from trainscope.convergence.ceiling import ceiling
from trainscope.convergence.extrapolation import ENOUGH, Sight, extrapolate
from trainscope.convergence.level_match import level_match
from trainscope.convergence.passage import Floats, noise, running_maximum
from trainscope.convergence.stage import FirstStage

TREND_ERROR = 1.3
"""The same of the curve's own trend, which is good only for what is near."""
STEPS_ERROR = 1.0
"""Error of the curve's own trend beyond a rise that costs steps and no LR time, which soon ends."""
RULE_ERROR = 0.7
"""Scale of the error of the ratio of the LRs alone, before calibration."""
OFF_ERROR = 0.1
"""Variance of the error for each squared unit by which the log ratio of passages is off that of the
LRs: where the levels reached tell another time factor than equal LR time, it goes on changing."""
UNLIKE = 1.25
"""How much wider the errors of a metric that is no percentage are: none was calibrated on."""
FEW_RECORDS, FEWER_ERROR = (6.0, 25.0), 0.2
"""With a reference: how the errors of such a metric fall with the records watched, as a power, and
from how few to how many."""
UNKNOWN = 2.0
"""Log time ahead, and its scale, of levels of which nothing is known."""
BEYOND = 2.3
"""Log time ahead, a factor of ten, beyond which no forecast was ever calibrated."""
FURTHER_ERROR = 0.5
"""Scale of the error of what lies beyond that, before calibration."""
LATER, LATER_RECORDS = 0.5, 6.0
"""Log time by which the trend of so few records tells a level close by too early, as pruned
networks recover fast at first; it falls with the third power of the records and within a log time
ahead. Half of what the classifiers on which it was chosen asked for: transformers ask for none."""
EARLY, EARLY_RECORDS = 2.0, (6.0, 25.0)
"""Error of the log of the log time ahead of what comes sooner than a trend foretells, after many
records; and from how few to how many it grows with them, as what an optimist asks about then comes
soon or not at all."""
NEAR_NOISE = (0.01, 2.7)
"""Noise in units of what is lacking, to whose fourth root that error grows: luck is early."""

Kind = Literal["matched", "alone", "rule"]


@dataclass(frozen=True)
class Forecast:
    """First passages of several levels, in LR time of the small run.

    Attributes:
        centre: [M], log of the passage.
        scale: [M], its error before calibration, in log time.
        watched: Log of the last time watched, from which a passage lies ahead.
        early: [M], the error of the log of the log time ahead of what comes early; None where it is
            `scale` too.
        in_sight: [M], 0 to 1: how far the curve's own trend agrees that the level will be reached.
        kind: What decided it.
    """

    centre: Floats
    scale: Floats
    in_sight: Floats
    kind: Kind
    watched: float = 0.0
    early: Floats | None = None

    def at(self, z: float) -> Floats:
        """Return the log passages at a standardised error, [M]."""
        if z >= 0 or self.early is None:
            return self.centre + self.scale * z
        return self.watched + (self.centre - self.watched) * np.exp(self.early * z)

    def error(self, log_time: Floats | float) -> Floats:
        """Return the standardised errors by which passages differ from the forecast, [M]."""
        z = (log_time - self.centre) / self.scale
        if self.early is None:
            return np.asarray(z)
        share = (log_time - self.watched) / (self.centre - self.watched)
        early = np.log(np.maximum(share, 1e-9)) / self.early
        return np.where(z < 0, np.minimum(early, 0.0), z)


def forecast(small: FirstStage, reference: FirstStage | None, levels: Floats) -> Forecast:
    """Forecast the first passages of levels above the present one.

    Args:
        small: At least one record; below `ENOUGH` without a reference nothing is known.
        reference: At least two records, or None.
        levels: [M], percent.
    """
    sight = extrapolate(small, levels) if len(small) >= ENOUGH else None
    watched = float(np.log(small.time[-1]))
    if reference is None:
        if sight is None:  # nothing is known of what lies ahead
            unknown = np.full(len(levels), UNKNOWN)
            return Forecast(watched + unknown, unknown, np.ones(len(levels)), "alone")
        scale = np.sqrt(0.01 + 0.04 * sight.median**2 + 1.8 / len(small))
        later = LATER * (LATER_RECORDS / max(len(small), LATER_RECORDS)) ** 3
        ahead = sight.median + later * np.exp(-np.maximum(sight.median, 0.0))
        if small.bounded:
            centre = watched + ahead
            early = _early(small, levels)
            return Forecast(centre, scale, sight.in_sight, "alone", watched, early)
        # A percentage has no level that far; the prior, which pulls to what is near, knows none.
        further = np.maximum(sight.straight - BEYOND, 0.0)
        centre = watched + ahead + further
        scale = np.hypot(UNLIKE * scale, FURTHER_ERROR * further)
        return Forecast(centre, scale, sight.in_sight, "alone")
    return _matched(small, reference, levels, sight, watched)


def _early(small: FirstStage, levels: Floats) -> Floats:
    """Return the error of the log of the log time ahead of what comes early, [M]."""
    lacking = np.maximum(levels - running_maximum(small.accuracy)[-1], 1e-3)
    near = np.clip(noise(small.accuracy) / lacking, *NEAR_NOISE)
    fewest, most = EARLY_RECORDS
    return np.asarray(EARLY * float(np.clip(len(small), fewest, most)) / most * near**0.25)


def _trend(sight: Sight) -> Floats:
    """Return the variance that the curve's own trend claims, [M]."""
    return np.asarray(0.003 + sight.spread**2 + (TREND_ERROR * sight.median) ** 2)


def _matched(
    small: FirstStage, reference: FirstStage, levels: Floats, sight: Sight | None, watched: float
) -> Forecast:
    """Return the forecast that rests on a reference."""
    match = level_match(small, reference, levels)
    if not match.matched and sight is None:
        scale = np.sqrt(RULE_ERROR**2 + match.extra)
        centre = match.centre
        return Forecast(np.maximum(centre, watched), scale, match.in_sight, "rule")

    def of_matches(past: FirstStage, at: Floats) -> tuple[Floats, Floats]:
        told = level_match(past, reference, at)
        return told.centre, told.claimed

    def of_trends(past: FirstStage, at: Floats) -> tuple[Floats, Floats]:
        told = extrapolate(past, at)
        return np.log(past.time[-1]) + told.median, _trend(told)

    by_match, by_trend = backtest(small, of_matches), backtest(small, of_trends)
    centre, variance, apart = match.centre, match.variance, match.apart
    ahead = np.maximum(centre - watched, 0.02)
    behind = np.maximum(watched - centre, 0.0)
    in_sight, extra = match.in_sight, match.extra
    top = ceiling(small, reference)
    if top is not None:
        in_sight = np.minimum(in_sight, top.in_reach(levels))
    apart_own = np.zeros(len(levels))
    unsure = np.sqrt(variance)
    if sight is not None:
        own = watched + sight.median
        of_match = match.claimed * by_match
        of_trend = _trend(sight) * by_trend + (STEPS_ERROR * match.after) ** 2
        share = of_match / (of_match + of_trend)
        centre = centre + share * (own - centre)
        apart_own = (own - np.maximum(centre, watched)) ** 2
        # A trend that needs more than twice the log time of the match speaks against it.
        in_sight = np.minimum(2 * (ahead + 0.2) / (sight.median + 0.2), in_sight)
        unsure = np.sqrt(1 / (1 / of_match + 1 / of_trend))
    centre = _later_than(watched, centre, unsure)
    # Far ahead, unsure, matches, trend, the LRs or the present that disagree, few records: all
    # scale-free.
    scale = np.sqrt(
        0.0005
        + 0.015 * (centre - watched) ** 2
        + 0.05 * variance
        + 0.13 * apart
        + 0.06 * apart_own
        + 0.2 * behind**2
        + OFF_ERROR * match.off**2
        + 0.1 / len(small)
        + extra
    )
    if not small.bounded:
        fewest, most = FEW_RECORDS
        scale = scale * (fewest / float(np.clip(len(small), fewest, most))) ** FEWER_ERROR
    return Forecast(centre, scale, in_sight, "matched")


def _later_than(now: float, centre: Floats, error: Floats) -> Floats:
    """Return the medians, [M], of logistic distributions of which only what is later is left."""
    width = np.sqrt(3) / np.pi * error
    return np.asarray(centre + width * np.logaddexp(0.0, np.log(2) + (now - centre) / width))
