"""`estimate_extra_epochs`: the question of a person who retrains at a small LR, answered."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from trainscope.convergence.axis import Axis
from trainscope.convergence.calibration import Calibration, load
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.decay_gain import Gain, decay_gain, final_quality
from trainscope.convergence.drawn import DISAGREE, drawn_band, withheld_for
from trainscope.convergence.early_decay import early_decay, log_slope
from trainscope.convergence.estimate import (
    FEW_REACH,
    NEVER,
    THE_WATCHED,
    Band,
    Estimate,
    EstimateStatus,
    Interval,
    over,
    sentence,
)
from trainscope.convergence.explanation import Findings, about_the_records, explain
from trainscope.convergence.extrapolation import ENOUGH
from trainscope.convergence.from_ends import from_ends
from trainscope.convergence.passage import first_passage, running_maximum
from trainscope.convergence.passages import Passages, passages
from trainscope.convergence.plan import Plan, read_plan
from trainscope.convergence.prospect import Prospect
from trainscope.convergence.scale import shared_scale
from trainscope.convergence.scheduled import (
    estimate_scheduled,
    extra_of,
    final_of,
    foresee,
    is_scheduled,
    passage_less,
)
from trainscope.convergence.stage import FEW, FirstStage, first_stage
from trainscope.errors import RecordError

HALF = 0.5
QUANTILES = np.linspace(0.01, 0.99, 50)
"""Of the passage, where the gain's uncertainty is laid over it."""
SLIGHT = 1e-6
"""A slope (percent per unit of log time) that is rounding."""
SHORTEST = 0.02
"""Share of a plan to which more epochs are looked for at least."""
NO_DECAYS = Gain(0.0, 0.0, "a plan without decays")


def estimate_extra_epochs(
    small: LearningCurve,
    target: float,
    reference: LearningCurve | None = None,
    level: float = 0.8,
    schedule: str | None = None,
    total_epochs: float | None = None,
    *,
    calibration: Calibration | None = None,
) -> Estimate:
    """Estimate when a retraining reaches a target, and how many epochs to add for it.

    The metric may be any, of either direction, over any axis: an error is estimated as the accuracy
    that it leaves, a loss by its share of what the curves have moved, a perplexity by its
    logarithm. The intervals were calibrated on accuracies.

    Args:
        small: The run that is watched: its first epochs at a constant LR, or all of it.
        target: Accuracy to reach, percent, or another value of the curves' metric. With a
            schedule, after its decays.
        reference: A run of the same network and data at a larger LR, where there is one.
        level: Probability that the intervals are to hold the truth with, between 0 and 1.
        schedule: The planned retraining, like `0:1e-3,30:1e-4,45:1e-5`.
        total_epochs: Its total of epochs; needed with a schedule.
        calibration: Errors to take the widths from; the shipped ones by default.

    Returns:
        The estimate. It never raises for a strange curve: its status says what is wrong.

    Raises:
        RecordError: The target or the level is not a number in range, or the reference has another
            metric or another axis.
        ScheduleError: The schedule cannot be read.
    """
    if not math.isfinite(target):
        what = "an accuracy" if small.metric.is_accuracy else f"a value of {small.metric.name}"
        unit = " in percent" if small.metric.unit == "%" else ""
        raise RecordError(f"the target must be {what}{unit}, not {target}")
    if not 0 < level < 1:
        raise RecordError(f"the level must lie between 0 and 1, like 0.8, not {level}")
    _check_alike(small, reference)
    decayed = early_decay(small)
    axis = Axis.of(small)
    small = axis.curve(small)
    reference = None if reference is None else axis.curve(reference)
    if len(small):
        scale = shared_scale([small] if reference is None else [small, reference])
        small = small.on(scale)
        reference = None if reference is None else reference.on(scale)
    scale = small.scale
    if scale.log and target <= 0:
        raise RecordError(f"a perplexity is above 0, and the target is {target:g}")
    plan = None if schedule is None else read_plan(schedule, total_epochs, axis)
    found = _estimated(small, target, reference, level, plan, calibration or load())
    found = axis.estimate(found)
    if decayed is not None:
        decayed = replace(decayed, explanation=over(small.per, decayed.explanation))
    return replace(
        found,
        explanation=over(small.per, found.explanation),
        doubt=over(small.per, found.doubt),
        withheld=over(small.per, found.withheld),
        early_decay=decayed,
    )


def _estimated(
    small: LearningCurve,
    target: float,
    reference: LearningCurve | None,
    level: float,
    plan: Plan | None,
    calibration: Calibration,
) -> Estimate:
    """Return the estimate for curves of one scale, on one axis."""
    scale, goal = small.scale, small.scale.quality(target)
    stage = first_stage(small)
    its = None if reference is None else first_stage(reference)
    if stage is not None and not len(stage) and reference is not None and its is not None:
        return from_ends(small, target, level, stage, its, plan, calibration)
    if not len(small) or stage is None:
        return _bare(target, level, EstimateStatus.EMPTY, small)
    if scale.percent and goal > 100.0:
        return _bare(target, level, EstimateStatus.IMPOSSIBLE, small)
    if is_scheduled(small, stage) and not small.diverged:
        found = estimate_scheduled(small, reference, target, level, plan)
        if found is not None:
            return found
    annealed = reference is not None and its is not None and is_scheduled(reference, its)
    if annealed:
        its = None  # it tells where plans end, and has no first stage to match
    reached = _best(stage) >= goal
    if small.diverged and not reached:
        return _bare(target, level, EstimateStatus.DIVERGED, small)
    usable = its if its is not None and len(its) else None
    if not len(stage) or (usable is None and len(stage) < ENOUGH and not reached):
        return _short(target, level, small, stage)
    ahead = passages(stage, usable, calibration)
    gain = (
        NO_DECAYS
        if plan is not None and not plan.tail
        else decay_gain(small, stage, reference, its)
    )
    final = final_quality(small, stage)
    after = final is not None and final >= goal
    tails = (HALF, (1 - level) / 2, (1 + level) / 2)
    foreseen = None if plan is None else foresee(small, reference, plan)
    horizon = ahead.horizon + stage.lag
    passage = Interval(*(ahead.quantile(p, goal) + stage.lag for p in tails))
    if _best(stage) < goal:
        passage = passage.as_far_as(horizon, 1 - ahead.reachable(goal))
    if after:
        extra, reachable = Interval(0.0, 0.0, 0.0), 1.0
    elif plan is None:
        extra = passage_less(passage, stage.end + stage.lag)
        reachable = ahead.reachable(goal)
    else:
        by_law = gain.guessed and (annealed or not stage.bounded)
        extra, reachable = _planned(ahead, foreseen, gain, goal, tails, plan, by_law=by_law)
    status = EstimateStatus.REACHED if after else _status(ahead, usable, goal, reachable)
    if status is EstimateStatus.REFERENCE_SHORT and reference is not None and its is not None:
        its_end = final_quality(reference, its)
        # The target may be its last value, above the mean of its last ones.
        if its_end is not None and max(its_end, float(reference.quality[-1])) >= goal:
            status = EstimateStatus.REFERENCE_DECAYED
    findings = Findings(
        scale=scale,
        ahead=ahead,
        reference=usable,
        gain=gain,
        target=goal,
        plan=plan,
        status=status,
        extra=extra,
        reachable=reachable,
        final=final,
        annealed=annealed,
        ends=final_of(foreseen, small, plan, tails),
    )
    withheld = withheld_for(stage, passage, status)
    band = Band() if withheld else drawn_band(ahead, passage, tails, small, usable)
    if reachable < HALF and any(scale.quality(value) >= goal for value in band.median):
        band, withheld = Band(), DISAGREE
    return Estimate(
        target=target,
        level=level,
        first_passage=passage,
        extra_epochs=extra,
        reachable=reachable,
        lr_time_bound=_bound(stage, usable, goal),
        status=status,
        explanation=about_the_records(explain(findings), status, small, len(stage)),
        doubt=findings.doubt,
        curve=band,
        withheld=withheld,
        metric=small.metric,
        per=small.per,
        final=findings.ends,
        lengthens=THE_WATCHED if plan is None else plan.lengthens,
    )


def _check_alike(small: LearningCurve, reference: LearningCurve | None) -> None:
    """Refuse a reference that is told by something else.

    Raises:
        RecordError: It has another metric, or another axis.
    """
    if reference is None:
        return
    if reference.metric != small.metric:
        raise RecordError(
            f"the run is told by its {small.metric.label} and the reference by its "
            f"{reference.metric.label}: give both by one metric"
        )
    if reference.per != small.per:
        raise RecordError(
            f"the run is told by the {small.per} and the reference by the {reference.per}: give "
            "both over one axis"
        )


def _planned(
    ahead: Passages,
    foreseen: Prospect | None,
    gain: Gain,
    target: float,
    tails: tuple[float, ...],
    plan: Plan,
    *,
    by_law: bool = False,
) -> tuple[Interval, float]:
    """Return the epochs to add so that the metric after the decays reaches the target.

    Half the weight is with the passages and the gain of decays, and half with the annealing law:
    neither was better on all kinds of problems. Where that gain would be guessed from the noise of
    the metric (`by_law`), which metrics that are no percentages need not show, or although the law
    knows the decays of a run without a first stage, the law stands alone; so it does for a plan
    without a first stage, which is stretched as a whole, as the passages know nothing of that. A
    plan without decays ends where the first passage is.
    """
    stage = ahead.stage
    if foreseen is not None and (not plan.staged or (plan.tail and by_law)):
        return extra_of(foreseen, target, tails), foreseen.reachable(target)
    # A plan at another LR than the one watched goes at another pace: equal LR time.
    pace, done = stage.lr / plan.lr, plan.tail + plan.first
    horizon = max((ahead.horizon + stage.lag) * pace - done, SHORTEST * plan.total)
    law = foreseen if plan.tail else None
    if law is not None:  # what neither sees lies beyond what either looks at
        horizon = max(horizon, float(law.longer[-1]))
    short = foreseen is not None and foreseen.ended is not None and foreseen.ended < target
    needs, weights, reachable = [], [], 0.0
    for points, weight in zip(*gain.draws(), strict=True):
        level = target - float(points)
        ends = np.array([ahead.quantile(float(p), level) for p in QUANTILES])
        later = ends >= ahead.horizon * (1 - 1e-9)
        need = np.maximum(0.0, (ends + stage.lag) * pace - done)
        needs.append(np.where(later, horizon, need))
        share = np.full(len(QUANTILES), float(weight) / len(QUANTILES))
        # A plan that was run, and ended below the target, is known to need more.
        weights.append(np.where(short & (need <= 0), 0.0, share))
        reachable += float(weight) * ahead.reachable(level)
    reachable = min(reachable, 1.0)
    if law is not None:
        extras = law.extras(target)
        needs.append(np.where(extras < law.longer[-1] * (1 - 1e-9), extras, horizon))
        weights.append(np.full(len(extras), 1 / len(extras)))
        reachable = (reachable + law.reachable(target)) / 2
    need, share = np.concatenate(needs), np.concatenate(weights)
    order = np.argsort(need)
    below = np.cumsum(share[order])
    places = np.minimum(np.searchsorted(below, np.array(tails) * below[-1]), len(need) - 1)
    found = need[order][places].tolist()
    return Interval(*found).as_far_as(horizon, 1 - reachable), reachable


def _status(
    ahead: Passages, reference: FirstStage | None, target: float, reachable: float
) -> EstimateStatus:
    """Return the first thing to know."""
    stage = ahead.stage
    if ahead.best[-1] >= target:
        return EstimateStatus.REACHED
    if len(stage) < FEW:
        return EstimateStatus.TOO_FEW
    slope, stderr = log_slope(stage)
    if slope < -2 * stderr - SLIGHT:
        return EstimateStatus.FALLING
    flat = slope <= stderr + SLIGHT
    if flat and reference is None:
        return EstimateStatus.FLAT
    short = reference is not None and _best(reference) < target
    if reachable < FEW_REACH and not (short and slope > 2 * stderr + SLIGHT):
        return EstimateStatus.UNREACHABLE
    if flat:
        return EstimateStatus.FLAT
    if short:
        return EstimateStatus.REFERENCE_SHORT
    return EstimateStatus.OK


def _best(stage: FirstStage) -> float:
    """Return the highest 5-epoch mean of a stage, percent; minus infinity for no records."""
    return float(running_maximum(stage.accuracy)[-1]) if len(stage) else -math.inf


def _bound(stage: FirstStage, reference: FirstStage | None, target: float) -> float | None:
    """Return the epoch of equal LR time, where the reference reached the target."""
    if reference is None or _best(reference) < target:
        return None
    best = running_maximum(reference.accuracy)
    passage = float(first_passage(reference.time, best, np.array([target]))[0])
    return passage * reference.lr / stage.lr + stage.lag


def _short(target: float, level: float, small: LearningCurve, stage: FirstStage) -> Estimate:
    """Return the estimate from a first stage of a few records, as under an LR that always falls."""
    bare = _bare(target, level, EstimateStatus.TOO_FEW, small)
    final = final_quality(small, stage)
    if final is not None and final >= small.scale.quality(target):
        last = float(small.epochs[-1])
        return replace(
            bare,
            status=EstimateStatus.REACHED,
            first_passage=Interval(last, min(stage.end + stage.lag, last), last),
            extra_epochs=Interval(0.0, 0.0, 0.0),
            reachable=1.0,
            explanation="The target is reached after the decays: the last records have "
            f"{small.scale.written(final)}.",
        )
    told = about_the_records(bare.explanation, bare.status, small, len(stage))
    return replace(bare, explanation=told)


def _bare(target: float, level: float, status: EstimateStatus, small: LearningCurve) -> Estimate:
    """Return an estimate that has only a status: never, or wholly unknown."""
    never = status in (EstimateStatus.IMPOSSIBLE, EstimateStatus.DIVERGED)
    watched = float(small.epochs[-1]) if len(small) else 0.0
    return Estimate(
        target=target,
        level=level,
        first_passage=NEVER if never else Interval(math.inf, watched, math.inf),
        extra_epochs=NEVER if never else Interval(math.inf, 0.0, math.inf),
        reachable=0.0 if never else HALF,
        lr_time_bound=None,
        status=status,
        explanation=sentence(status, small.metric),
        metric=small.metric,
        per=small.per,
    )
