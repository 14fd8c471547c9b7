"""Matching levels, not times: how much later the small LR reaches what the large one reached.

For every level that both runs have reached, the ratio of their first passages is known. Under the
rule of equal LR time it would be the ratio of the learning rates at all levels; in truth it drifts,
slowly, as training goes on (momentum, plateaus, different noise). The log ratio is therefore taken
to be an Ornstein-Uhlenbeck process about that rule along the log time of the reference, seen
through noise that is known from the curves, and is carried on to the time at which the reference
reached the target: far from all that was matched, the rule comes back. Nothing in it is fitted to a
problem: the two constants below only set how fast old evidence is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.passage import (
    Floats,
    first_passage,
    local_level,
    noise,
    running_maximum,
)
from trainscope.convergence.stage import SAME, FirstStage

OFFSET = 0.7
"""Prior standard deviation of the log ratio about the log ratio of the learning rates."""
LENGTH, LENGTH_TRAINED = 7.0, 0.7
"""Log time of the reference over which it is forgotten: of a network that began untrained, and of
one that began with most of what the reference reached, as pruned ones do. That recovers fast at
first, at any LR, so that the ratio of its first levels tells little of later ones."""
TRAINED = (0.3, 0.6)
"""Share of the reference's best that a network began with, from which on it begins to count as
trained, and at which it does so wholly."""
IN_STEPS = (0.1, 0.35)
"""Share of the log ratio of the LRs by which passages of the levels reached are apart: up to the
first they count as a matter of steps, the same at any LR, and from the second on as one of LR time.
Statistics of batch norm that are taken anew, or momentum that gathers, cost steps: such a rise
ends, and tells nothing of what comes after it."""
BANDWIDTH = 0.35
"""Half-width of the local fits, in log time."""
CLOSE = 0.01
"""Variance of the logarithm of a passage that every level matched has in a mean of their ratios."""
LEVELS = 12
"""Levels matched, evenly over the last decade of the small run's log time."""
BEFORE, EARLY = 0.7, 0.15
"""Error of the logarithm of a passage before the first record, and just after it."""
KNOTS = 500
"""Records at which a reference is smoothed, at most."""
EXCESS = 2.0
"""The noise of neighbouring levels is shared, so that each counts as this many times noisier."""


def unseen(at: Floats, first: float) -> Floats:
    """Return the error of the logarithm of early passages, [M].

    Before the first record the shape is anybody's guess, and until the third it is a rough one.

    Args:
        at: [M], times of passages.
        first: Time of the first record.
    """
    share = first / np.maximum(at, SAME * first)
    # Without a jump, so that a passage at a record is not decided by rounding.
    return np.interp(share, (1 / 3, 1.0, 1.02), (0.0, EARLY, BEFORE))


@dataclass(frozen=True)
class Rising:
    """A smoothed curve that never falls, with the noise that is left in its passages.

    Attributes:
        time: [N+1], records of LR time, 0 first.
        level: [N+1], never falling.
        slope: [N+1], per unit of log time.
        stderr: [N+1], of the level.
    """

    time: Floats
    level: Floats
    slope: Floats
    stderr: Floats

    def passage(self, level: Floats) -> tuple[Floats, Floats, Floats]:
        """Return each level's first passage, the noise of its logarithm, and its shape's error.

        Returns:
            Times [M]; the variance of their logarithms [M], from the records' noise; and the error
            of what lies between records [M], which neighbours share.
        """
        time = first_passage(self.time, self.level, level)
        at = np.where(np.isfinite(time), time, self.time[-1])
        slope = np.interp(at, self.time, self.slope)
        stderr = np.interp(at, self.time, self.stderr)
        variance = np.minimum((stderr / np.maximum(slope, 1e-9)) ** 2, 4.0)
        return time, variance, unseen(at, float(self.time[1]))


@dataclass(frozen=True)
class Matches:
    """The log ratio of two first passages at several levels.

    Attributes:
        at: [M], log time of the reference's passage.
        ratio: [M], log of the small run's passage over the reference's.
        variance: [M], of each by itself.
        shared: [M], standard error that all have in common.
    """

    at: Floats
    ratio: Floats
    variance: Floats
    shared: Floats

    def carry_on(self, at: Floats, prior: float, length: float) -> tuple[Floats, Floats]:
        """Return the mean and variance of the log ratio at other log times of the reference.

        Args:
            at: [M] log times.
            prior: The log ratio of the learning rates.
            length: Log time over which a ratio is forgotten.
        """
        prior_variance = np.full(len(at), OFFSET**2)
        if not len(self.at):
            return np.full(len(at), prior), prior_variance
        known = OFFSET**2 * np.exp(-np.abs(self.at[:, None] - self.at[None]) / length)
        cross = OFFSET**2 * np.exp(-np.abs(self.at[:, None] - at[None]) / length)
        known[np.diag_indices_from(known)] += EXCESS * self.variance + 1e-4
        known += np.outer(self.shared, self.shared)
        solved = np.linalg.solve(known, np.column_stack((cross, self.ratio - prior)))
        mean = prior + cross.T @ solved[:, -1]
        return mean, prior_variance - np.einsum("ij,ij->j", cross, solved[:, :-1])


def memory(small: FirstStage, reference: FirstStage, steps: float) -> float:
    """Return the log time of the reference over which a ratio of passages is forgotten.

    Of percentages alone it is known how much a network began with.

    Args:
        small: The watched stage.
        reference: With at least one record, at another LR.
        steps: How far its levels come after equally many steps (`in_steps`).
    """
    forgotten = max(_trained(small, reference), steps)
    return float(LENGTH * (LENGTH_TRAINED / LENGTH) ** forgotten)


def _trained(small: FirstStage, reference: FirstStage) -> float:
    """Return how far a network counts as one that began trained, 0 to 1."""
    begun = small.start or reference.start
    best = float(running_maximum(reference.accuracy)[-1])
    if begun is None or not small.bounded or best <= 0:
        return 0.0
    low, high = TRAINED
    return float(np.clip((begun[0] / best - low) / (high - low), 0.0, 1.0))


def in_steps(small: FirstStage, reference: FirstStage, matches: Matches) -> float:
    """Return how far the levels reached come after equally many steps at any LR, 0 to 1.

    Args:
        small: The watched stage.
        reference: With at least one record, at another LR.
        matches: Levels of the metric that both have reached.
    """
    apart = float(np.log(reference.lr / small.lr))
    if not len(matches.ratio) or apart <= 0:
        return 0.0
    known = 1 / (matches.variance + matches.shared**2 + CLOSE)
    share = float(np.average(matches.ratio, weights=known)) / apart
    low, high = IN_STEPS
    return float(np.clip((high - share) / (high - low), 0.0, 1.0))


def rising(stage: FirstStage, values: Floats, start: float | None) -> Rising:
    """Return the smoothed curve of one column of a stage with at least two records."""
    at = stage.time
    if len(at) > KNOTS:  # a smooth curve needs no more, and every knot costs all records
        at = at[np.unique(np.geomspace(1, len(at), KNOTS).round().astype(int) - 1)]
    level, slope, leverage = local_level(stage.time, values, at, BANDWIDTH)
    first = min(level[0], level[0] if start is None else start)
    level = np.maximum.accumulate(np.concatenate(([first], level)))
    # Without a record of the untrained network, nothing below the first record can be matched.
    if start is None:
        level[0] = level[1] - 1e-9
    stderr = noise(values) * leverage
    return Rising(
        time=np.concatenate(([0.0], at)),
        level=level,
        slope=np.concatenate((slope[:1], slope)),
        stderr=np.concatenate((stderr[:1], stderr)),
    )


def match_levels(small: FirstStage, values: Floats, reference: Rising) -> Matches:
    """Return the log ratio of first passages at levels that the small run has reached.

    Args:
        small: The first LR stage of the small run.
        values: [N], its accuracy, or another quantity that rises.
        reference: The same of the reference.
    """
    last = small.time[-1]
    at = np.unique(np.geomspace(max(small.time[0], last / 10), last, LEVELS))
    level, slope, leverage = local_level(small.time, values, at, BANDWIDTH)
    variance = (noise(values) * leverage / np.maximum(slope, 1e-9)) ** 2
    time, other, shared = reference.passage(level)
    keep = np.isfinite(time) & (time > 0.02 * reference.time[1])
    keep &= level > reference.level[0]
    time = np.where(keep, time, 1.0)
    return Matches(
        at=np.log(time[keep]),
        ratio=np.log(at[keep] / time[keep]),
        variance=np.minimum(variance[keep] + other[keep], 4.0),
        shared=shared[keep],
    )
