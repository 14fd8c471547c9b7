"""What the levels that two runs have both reached say of a level that only the larger LR has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainscope.convergence.extrapolation import ENOUGH, extrapolate
from trainscope.convergence.matching import (
    LENGTH,
    Matches,
    in_steps,
    match_levels,
    memory,
    rising,
    unseen,
)
from trainscope.convergence.passage import WINDOW, Floats, first_passage, noise, running_maximum
from trainscope.convergence.stage import FirstStage

ACCURACY_SHARE = 0.7
"""Weight of accuracy against loss at equal variance: a level of loss is reached with a better
accuracy at a small LR, so that matched losses are a little late."""
MATCH_ERROR = 0.1
"""Error of a matched passage, beyond what the curves show, per unit of log time ahead."""
TOLERANCE = 1.0
"""Of a reference's levels, in standard errors of the centred mean."""
STEPS_AFTER = 0.5
"""Log time of the reference after the last level matched, from which on a level lies wholly beyond
a rise that costs steps."""


@dataclass(frozen=True)
class LevelMatch:
    """What the levels matched with a reference say.

    Attributes:
        centre: [M], log of the passage.
        variance: [M], of the ratio and of the reference's own passage.
        claimed: [M], variance of the whole.
        apart: [M], squared gap of what accuracy and loss say.
        extra: [M], variance of the reference's own passage.
        in_sight: [M], how far the reference itself gets there.
        off: [M], log ratio of the passages, were none forgotten, less that of the LRs.
        after: [M], 0 to 1: how far a level lies beyond a rise that costs steps and no LR time.
        matched: Levels matched.
    """

    centre: Floats
    variance: Floats
    claimed: Floats
    apart: Floats
    extra: Floats
    in_sight: Floats
    off: Floats
    after: Floats
    matched: int


def tolerance(reference: FirstStage) -> float:
    """Return the points by which a reference may miss a level that it is said to have reached.

    A reference on a plateau reaches the next hundredth of a point many epochs later, by luck.
    """
    return TOLERANCE * noise(reference.accuracy) / float(np.sqrt(WINDOW))


def reference_passages(reference: FirstStage, levels: Floats) -> tuple[Floats, Floats, Floats]:
    """Return a reference's log first passage of each level, its variance and its sight, [M] each.

    Levels that it has not reached are put where its own trend reaches them, as far as it does.
    """
    best = running_maximum(reference.accuracy)
    reached = first_passage(reference.time, best, levels - tolerance(reference))
    seen = np.isfinite(reached)
    log_time = np.log(np.where(seen, np.maximum(reached, 1e-9), reference.time[-1]))
    extra = unseen(np.exp(log_time), float(reference.time[0])) ** 2
    in_sight = np.ones(len(levels))
    if not seen.all():
        if len(reference) >= ENOUGH:
            sight = extrapolate(reference, levels[~seen])
            log_time[~seen] += sight.median
            extra[~seen] = sight.spread**2
            in_sight[~seen] = sight.in_sight
        else:
            extra[~seen] = 1.0
    return log_time, extra, in_sight


def level_match(small: FirstStage, reference: FirstStage, levels: Floats) -> LevelMatch:
    """Return what the levels matched with a reference say.

    Args:
        small: The watched stage.
        reference: At least two records.
        levels: [M], percent.
    """
    at, extra, in_sight = reference_passages(reference, levels)
    prior = float(np.log(reference.lr / small.lr))
    told = _matches(small, reference)
    matched = sum(len(matches.at) for matches in told)
    steps = in_steps(small, reference, told[0])
    ratio, variance, apart, kept = _ratio(told, at, prior, memory(small, reference, steps))
    after = np.zeros(len(levels))
    if len(told[0].at):
        after += steps * np.clip((at - told[0].at.max()) / STEPS_AFTER, 0.0, 1.0)
    centre, watched = at + ratio, float(np.log(small.time[-1]))
    # A match by which the level should have been reached by now is wrong by that much.
    behind = np.maximum(watched - centre, 0.0)
    ahead = np.maximum(centre - watched, 0.02)
    variance = variance + extra
    claimed = variance + 0.25 * apart + (MATCH_ERROR * ahead) ** 2 + behind**2
    off = kept - prior
    return LevelMatch(centre, variance, claimed, apart, extra, in_sight, off, after, matched)


def _ratio(
    told: Sequence[Matches], at: Floats, prior: float, length: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the log ratio of passages, and how sure it is.

    Args:
        told: Levels matched, of the accuracy and perhaps of the loss.
        at: [M], log times of the reference.
        prior: The log ratio of the LRs.
        length: Log time over which a ratio is forgotten.

    Returns:
        The ratio [M], its variance [M], the squared gap of the two matches [M], and the ratio were
        none forgotten sooner than of an untrained network [M].
    """
    means, variances, lasting = [], [], []
    for matches in told:
        mean, variance = matches.carry_on(at, prior, length)
        kept = mean if length == LENGTH else matches.carry_on(at, prior, LENGTH)[0]
        means.append(mean)
        variances.append(variance)
        lasting.append(kept)
    if len(means) == 1:
        return means[0], variances[0], np.zeros(len(at)), lasting[0]
    weight = ACCURACY_SHARE / (variances[0] + 0.02)
    other = (1 - ACCURACY_SHARE) / (variances[1] + 0.02)
    total = weight + other
    weight, other = weight / total, other / total
    mean = weight * means[0] + other * means[1]
    kept = weight * lasting[0] + other * lasting[1]
    variance = 1 / (weight / variances[0] + other / variances[1])
    return mean, variance, (means[0] - means[1]) ** 2, kept


def _matches(small: FirstStage, reference: FirstStage) -> list[Matches]:
    """Return the levels matched of the accuracy, and of the training loss where both have it."""
    found = []
    for column in ("accuracy", "loss"):
        mine, its = _column(small, column), _column(reference, column)
        if mine is not None and its is not None:
            found.append(match_levels(small, mine[0], rising(reference, *its)))
    return found


def _column(stage: FirstStage, name: str) -> tuple[Floats, float | None] | None:
    """Return accuracy, or minus log loss, and the untrained network's where it is known."""
    if name == "accuracy":
        return stage.accuracy, stage.start[0] if stage.start else None
    if stage.loss is None:
        return None
    start = stage.start[1] if stage.start else None
    return -np.log(np.maximum(stage.loss, 1e-8)), None if start is None else -float(np.log(start))
