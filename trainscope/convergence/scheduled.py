"""The estimate for a run whose LR changes all along, like a cosine: by the annealing law alone."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from trainscope.convergence.annealing import fit_law
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.decay_gain import LAST
from trainscope.convergence.estimate import (
    FEW_REACH,
    THE_WATCHED,
    Band,
    Estimate,
    EstimateStatus,
    Interval,
    sentence,
)
from trainscope.convergence.passage import Floats, first_passage, running_maximum
from trainscope.convergence.plan import Plan
from trainscope.convergence.prospect import Prospect, prospect
from trainscope.convergence.scale import Scale
from trainscope.convergence.stage import FEW, SAME, FirstStage, held
from trainscope.convergence.track import Track

HALF = 0.5
ROUNDED = 0.02
"""Share of the largest LR by which the same schedule may differ, as it was written or averaged."""
OTHER = 0.05
"""Share of the epochs watched in which a run may have had other LRs than its plan."""
NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 199) for i in range(199)])
"""A standard normal, by its quantiles."""


def is_scheduled(small: LearningCurve, stage: FirstStage) -> bool:
    """Return whether a curve's LR falls before a first stage was seen, while there are records."""
    return stage.decayed and held(small, stage) < FEW <= int((small.epochs > 0).sum())


def foresee(
    small: LearningCurve, reference: LearningCurve | None, plan: Plan | None
) -> Prospect | None:
    """Return what a plan leads to, from all records of the run and of its reference.

    Args:
        small: The watched run.
        reference: Another of the same network, on the same scale.
        plan: The plan; without one the present LR goes on.

    Returns:
        The prospect; None for too few records.
    """
    law = fit_law([small] if reference is None else [small, reference])
    if law is None or not (small.epochs > 0).any():
        return None
    own, watched = Track.of(small), float(small.epochs[-1])
    if plan is None:
        now = Track(np.array([watched]), own.rates[-1:])
        plan = Plan(watched, float(own.rates.max()), 0.0, own.until(watched))
        return prospect(law, plan, own.then(now), watched)
    ended = float(small.quality[-LAST:].mean())
    its_own = own if _same_start(own, plan.track, watched) else None
    return prospect(law, plan, its_own, watched, ended)


def _same_start(own: Track, planned: Track, watched: float) -> bool:
    """Return whether a plan begins with the LRs that a run had."""
    mine, its = own.until(watched), planned.until(watched)
    mine, its = mine.split(its.edges), its.split(mine.edges)
    apart = np.abs(mine.rates - its.rates) > ROUNDED * own.peak
    return float(np.diff(mine.edges, prepend=0.0)[apart].sum()) <= OTHER * watched


def final_of(
    ahead: Prospect | None, small: LearningCurve, plan: Plan | None, tails: tuple[float, ...]
) -> Interval | None:
    """Return where a plan ends, in the metric's unit and within its range; None where unknown.

    Args:
        ahead: The prospect.
        small: The run, whose scale this is.
        plan: The plan.
        tails: Probabilities of the median, the low and the high end.
    """
    if ahead is None or plan is None:
        return None
    if ahead.ended is not None:
        last = small.quality[-LAST:]
        error = float(last.std(ddof=1)) / math.sqrt(len(last)) if len(last) > 1 else 0.0
        return _values(small.scale, ahead.ended + error * NORMAL, tails)
    ends = ahead.final()
    middle = float(small.scale.within(float(np.median(ends))))  # that of the extra epochs' curves
    scatter = np.resize(NORMAL, len(ends))
    np.random.default_rng(1).shuffle(scatter)
    ends = ends + ahead.law.jitter * scatter  # as it is measured
    found = _values(small.scale, ends, tails)
    if not small.scale.percent:
        law, end = ahead.law, ahead.at[-1:]
        turned = law.turned(ends[:, None], law.helped, ahead.track, end)[:, 0]
        worse = _values(small.scale, turned, tails)  # as far as the curves have not turned yet
        up = small.scale.metric.sign > 0
        found = Interval(
            found.median, worse.low if up else found.low, found.high if up else worse.high
        )
    return Interval(middle, min(found.low, middle), max(found.high, middle))


def estimate_scheduled(
    small: LearningCurve,
    reference: LearningCurve | None,
    target: float,
    level: float,
    plan: Plan | None,
) -> Estimate | None:
    """Return the estimate for a run whose LR changes all along.

    The first passage is that of the run under its plan, whose last LR goes on; the extra epochs are
    those by which the plan is stretched, or its first stage made longer, so that it ends at the
    target. Without a plan the present LR goes on, and the extra epochs are those until the passage.

    Args:
        small: The run.
        reference: Another run of the same network.
        target: In the metric's unit.
        level: Probability that the intervals are to hold the truth with.
        plan: The plan.
    """
    ahead = foresee(small, reference, plan)
    if ahead is None:
        return None
    tails = (HALF, (1 - level) / 2, (1 + level) / 2)
    goal, watched = small.scale.quality(target), ahead.watched
    seen = running_maximum(small.quality[small.epochs > 0])
    final = final_of(ahead, small, plan, tails)
    ended = final is not None and small.scale.quality(final.median) >= goal
    done = bool(seen[-1] >= goal) if plan is None or plan.total > watched else ended
    if seen[-1] >= goal:
        at = float(first_passage(small.epochs[small.epochs > 0], seen, np.array([goal]))[0])
        passage, chance = Interval(at, at, at), 1.0
    else:
        # A plan for another run begins at its own start; this one has not been there yet.
        found = [max(end, watched) for end in ahead.passage(goal, tails)]
        chance = ahead.ever(goal)
        passage = Interval(*found).as_far_as(ahead.horizon, 1 - chance)
    if done:
        extra, reachable = Interval(0.0, 0.0, 0.0), 1.0
    elif plan is None:
        extra, reachable = passage_less(passage, watched), chance
    else:
        extra, reachable = extra_of(ahead, goal, tails), ahead.reachable(goal)
    status = EstimateStatus.OK if reachable >= FEW_REACH else EstimateStatus.UNREACHABLE
    status = EstimateStatus.REACHED if done else status
    return Estimate(
        target=target,
        level=level,
        first_passage=passage,
        extra_epochs=extra,
        reachable=reachable,
        lr_time_bound=None,
        status=status,
        explanation=_explained(small, ahead, plan, status, reachable, final),
        curve=_band(ahead, small, tails),
        metric=small.metric,
        per=small.per,
        final=final,
        lengthens=THE_WATCHED if plan is None else plan.lengthens,
    )


def passage_less(passage: Interval, watched: float) -> Interval:
    """Return the epochs from what was watched to a passage."""
    ends = (passage.median, passage.low, passage.high, passage.horizon)
    median, low, high, horizon = (max(0.0, end - watched) for end in ends)
    return Interval(median, low, high, horizon, passage.beyond)


def extra_of(ahead: Prospect, goal: float, tails: tuple[float, ...]) -> Interval:
    """Return the epochs to add to a plan so that it ends at a goal."""
    horizon, missed = float(ahead.longer[-1]), 1 - ahead.reachable(goal)
    return Interval(*ahead.extra(goal, tails)).as_far_as(horizon, missed)


def _values(scale: Scale, quality: Floats, tails: tuple[float, ...]) -> Interval:
    """Return quantiles of qualities as values; low below high, whichever is better."""
    median, low, high = (float(scale.within(q)) for q in np.quantile(quality, tails))
    return Interval(median, min(low, high), max(low, high))


def _band(ahead: Prospect, small: LearningCurve, tails: tuple[float, ...]) -> Band:
    """Return the predicted values from the last watched record to the end of the plan."""
    if not ahead.followed or ahead.at[-1] <= ahead.watched * (1 + SAME):
        return Band()
    quality = np.quantile(ahead.curves, tails, axis=0)
    quality[:, 0] = small.quality[-1]  # what is drawn goes on from what was measured
    median, low, high = small.scale.within(quality)
    return Band(
        tuple(ahead.at.tolist()),
        tuple(median.tolist()),
        tuple(np.minimum(low, high).tolist()),
        tuple(np.maximum(low, high).tolist()),
    )


def _rises_again(rates: Floats) -> bool:
    """Tell whether an LR rises after a fall, as cycles and restarts do; a warm-up does not."""
    lowest = np.minimum.accumulate(rates[int(rates.argmax()) :])
    after = rates[int(rates.argmax()) :]
    falls = after[1:] > lowest[:-1] * (1 + SAME)
    before = rates[: int(rates.argmax()) + 1]
    return bool(falls.any()) or bool((np.diff(before) < -SAME * before[:-1]).any())


def _explained(
    small: LearningCurve,
    ahead: Prospect,
    plan: Plan | None,
    status: EstimateStatus,
    reachable: float,
    final: Interval | None,
) -> str:
    """Return what the estimate rests on, in sentences."""
    metric, now = small.metric, float(small.lr[-1])
    text = "" if status is EstimateStatus.OK else f"{sentence(status, metric)} "
    way = (
        "rises again after it fell" if _rises_again(small.lr) else "falls from the first epochs on"
    )
    text += (
        f"The LR {way}, so that the estimate rests on all "
        f"{int((small.epochs > 0).sum())} records and their LRs."
    )
    if plan is None:
        text += (
            f" No plan was given: the present LR of {now:g} is taken to go on. Give the schedule "
            "and its total of epochs for where it ends, like --shape cosine --epochs TOTAL "
            "(continued_schedule())."
        )
    elif final is not None:
        low, high = metric.written(final.low, 2), metric.written(final.high, 2)
        ran = ahead.ended is not None
        text += (
            f" The plan of {plan.total * plan.unit:g} epochs {'ended' if ran else 'ends'} at "
            f"{metric.written(final.median, 2)}{'' if ran else f' ({low} to {high})'}."
        )
        if status is not EstimateStatus.REACHED:
            text += f" The extra epochs are to be added to {plan.lengthens}."
    if status is EstimateStatus.UNREACHABLE:
        horizon = plan.total + ahead.longer[-1] if plan is not None else ahead.horizon
        horizon *= small.unit
        text += (
            f" It is not reached within {horizon:.0f} epochs with probability {1 - reachable:.2f}."
        )
    return text
