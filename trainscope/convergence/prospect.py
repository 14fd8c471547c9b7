"""What a plan leads to, by the annealing law: where it ends, when it gets there, how much longer.

Every draw of the law's posterior is a whole curve, so that a higher target is never reached sooner,
and a plan that ends higher is never said to need more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainscope.convergence.annealing import Law
from trainscope.convergence.passage import Floats
from trainscope.convergence.plan import Plan
from trainscope.convergence.stage import SAME
from trainscope.convergence.track import Track

HALF, LATE = 0.5, 0.3
"""The median, and how much of the turn of a loss the late ends of longer plans have: enough for
them to hold, where all of it makes those of language models endless."""
POINTS = 40
"""Epochs at which a curve is looked at."""
LONGEST = 30.0
"""Lengths of the plan, or of its first stage, up to which a longer one is tried."""
LENGTHS = 12
"""How many longer plans are tried."""


@dataclass(frozen=True)
class Prospect:
    """The curves that a law foresees under a plan.

    Attributes:
        law: The law.
        plan: The plan.
        track: Its LRs, with those of the watched run up to where that was watched.
        watched: The epoch to which the run was watched.
        followed: True where the watched run is the plan's first part.
        ended: Quality that the watched run ended with, where it has run all of the plan.
        at: [M], epochs from there to the plan's end.
        curves: [D, M], quality of every draw.
        longer: [K], epochs that are added.
        ends: [D, K], quality at the end of the plan with as many more epochs, never falling.
        turned: [D, K], the same if the loss turns for the worse (`Law.turned`).
    """

    law: Law
    plan: Plan
    track: Track
    watched: float
    followed: bool
    at: Floats
    curves: Floats
    longer: Floats
    ends: Floats
    turned: Floats
    ended: float | None = None

    def final(self) -> Floats:
        """Return the quality at the end of the plan, [D]."""
        return self.curves[:, -1]

    def reachable(self, goal: float) -> float:
        """Return the probability that the plan, or one made longer, ends at a goal."""
        return float(np.mean(self.turned[:, -1] >= goal))

    def extra(self, goal: float, tails: tuple[float, ...]) -> tuple[float, ...]:
        """Return quantiles of the epochs to add so that the plan ends at a goal; all finite.

        A draw that never gets there counts as the longest plan that was tried. The late ones are
        those of a loss that turns.

        Args:
            goal: Quality.
            tails: Probabilities.
        """
        plain = np.quantile(self.extras(goal), tails)
        late = np.quantile(_reaching(self.longer, self.turned, goal), tails)
        found: list[float] = np.where(np.array(tails) > HALF, late, plain).tolist()
        return tuple(found)

    def extras(self, goal: float) -> Floats:
        """Return the epochs to add by every draw, [D]."""
        return _reaching(self.longer, self.ends, goal)

    @property
    def horizon(self) -> float:
        """Return the last epoch that is looked at: the plan's last LR goes on to it."""
        return LONGEST * float(self.at[-1])

    def passage(self, goal: float, tails: tuple[float, ...]) -> tuple[float, ...]:
        """Return quantiles of the epoch at which a goal is first reached under the plan; finite.

        The plan's last LR goes on to `horizon`, which a draw that never gets there counts as.
        """
        found: list[float] = np.quantile(_reaching(*self._onward, goal), tails).tolist()
        return tuple(found)

    def ever(self, goal: float) -> float:
        """Return the probability that a goal is reached by `horizon`."""
        return float(np.mean(self._onward[1][:, -1] >= goal))

    @cached_property
    def _onward(self) -> tuple[Floats, Floats]:
        """Return epochs to the horizon, [K], and the running maximum of every draw, [D, K]."""
        beyond = float(self.at[-1]) * np.geomspace(1.02, LONGEST, LENGTHS)
        later = self.law.quality(self.track, beyond, self.watched)
        curves = np.concatenate((self.curves, later), axis=1)
        return np.append(self.at, beyond), np.maximum.accumulate(curves, axis=1)


def prospect(
    law: Law, plan: Plan, followed: Track | None, watched: float, ended: float | None = None
) -> Prospect:
    """Return what a plan leads to, from all that was watched on.

    Args:
        law: Of the network.
        plan: The plan, from epoch 0.
        followed: LRs of the watched run where it is the plan's first part; None where the plan is
            for another run.
        watched: The epoch to which the law's runs say where this one stands.
        ended: Quality that the watched run ended with. Where that is the plan's end, longer plans
            are told from there, so that none is said to need nothing to end above it.
    """
    start = watched if followed is not None else 0.0

    track = plan.track
    if followed is not None:
        track = followed.until(start).then(track)
    end = max(plan.total, start)
    low = max(start, end / 1e3)
    even = np.linspace(low, end, POINTS)
    at = np.unique(np.append(np.geomspace(low, end, POINTS // 2), even))
    curves = law.quality(track, at, watched)
    unit = plan.first if plan.staged else plan.total
    longer = np.append(0.0, unit * np.geomspace(0.02, LONGEST, LENGTHS))
    ends = [(track, curves[:, -1:])]
    for extra in longer[1:]:
        afresh = plan.longer(float(extra))
        ends.append((afresh, law.quality(afresh, afresh.edges[-1:], watched)))
    plain = np.concatenate([end for _, end in ends], axis=1)
    later = [law.turned(end, LATE * law.helped, one, one.edges[-1:]) for one, end in ends]
    both = [np.maximum.accumulate(each, axis=1) for each in (plain, np.concatenate(later, axis=1))]
    if followed is None or plan.total > watched * (1 + SAME):
        ended = None
    if ended is not None:
        both = [each + (ended - each[:, :1]) for each in both]
    return Prospect(
        law, plan, track, watched, followed is not None, at, curves, longer, both[0], both[1], ended
    )


def _reaching(at: Floats, rising: Floats, goal: float) -> Floats:
    """Return when each curve reaches a goal, [D]; the last place for those that do not.

    Args:
        at: [M], increasing.
        rising: [D, M], curves that never fall.
        goal: Level.
    """
    reached = rising >= goal
    place = np.where(reached[:, -1], np.argmax(reached, axis=1), len(at) - 1)
    before = np.maximum(place - 1, 0)
    rows = np.arange(len(rising))
    low, high = rising[rows, before], rising[rows, place]
    gap = high - low
    share = np.where(gap > 0, (goal - low) / np.where(gap > 0, gap, 1.0), 1.0)
    return np.asarray(at[before] + np.clip(share, 0.0, 1.0) * (at[place] - at[before]))
