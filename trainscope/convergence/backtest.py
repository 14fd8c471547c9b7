"""What two ways to forecast would have said earlier on, of the levels that have come since.

A reference is worth what it was worth so far. The watched stage is cut short, and the passages of
the levels that it has reached since are forecast from what was known then: by the levels matched
with the reference, and by the stage's own trend. Errors beyond what either claimed make it count
less. (To take off an error that is always to one side made sound references worse.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainscope.convergence.passage import Floats, first_passage, running_maximum
from trainscope.convergence.stage import FirstStage

CUTS = (0.3, 0.5, 0.7)
"""Shares of the time watched at which the stage is cut."""
SPREAD = np.array([1.0, 2.0, 3.0, 4.0]) / 4.5
"""Levels looked at, as shares of what the stage has risen since a cut."""
LEAST = 1e-9
"""Points that the stage has risen since, at least."""
LATER = 1.02
"""Share of the time of a cut by which a passage is later than it."""
FEWEST = 4
"""Records before a cut, at least."""
BELIEF = 2.0
"""Cuts' worth of belief in what a forecast claims."""
MOST = 50.0
"""The most that one squared error counts, in units of the variance that was claimed."""

Claim = Callable[[FirstStage, Floats], tuple[Floats, Floats]]
"""From a stage and levels [M]: log passages [M], and their variance as claimed [M]."""


def shortened(stage: FirstStage, time: float) -> FirstStage:
    """Return the records of a stage up to a time."""
    keep = stage.time <= time
    loss = None if stage.loss is None else stage.loss[keep]
    return replace(stage, time=stage.time[keep], accuracy=stage.accuracy[keep], loss=loss, end=time)


def backtest(stage: FirstStage, claim: Claim) -> float:
    """Return the factor by which a forecast's variance was larger than it claimed; 1 if unknown.

    Args:
        stage: What was watched.
        claim: The forecast.
    """
    best = running_maximum(stage.accuracy)
    errors = []
    for cut in CUTS:
        now = cut * float(stage.time[-1])
        past = shortened(stage, now)
        if not FEWEST <= len(past) <= len(stage) - 2:
            continue
        low, high = float(running_maximum(past.accuracy)[-1]), float(best[-1])
        if high - low < LEAST:
            continue
        levels: Floats = low + (high - low) * SPREAD
        true = first_passage(stage.time, best, levels)
        known = np.isfinite(true) & (true > now * LATER)
        if known.any():
            centre, variance = claim(past, levels[known])
            square = (centre - np.log(true[known])) ** 2 / variance
            errors.append(float(np.minimum(square, MOST).mean()))
    return (BELIEF + sum(errors)) / (BELIEF + len(errors))
