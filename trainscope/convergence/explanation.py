"""The sentences that stand by an estimate's numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainscope.convergence.ceiling import ceiling
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.decay_gain import Gain
from trainscope.convergence.early_decay import log_slope
from trainscope.convergence.estimate import EstimateStatus, Interval, sentence
from trainscope.convergence.passage import running_maximum
from trainscope.convergence.passages import Passages
from trainscope.convergence.plan import Plan
from trainscope.convergence.scale import Scale
from trainscope.convergence.stage import FEW, SAME, FirstStage

ROUNDED = 0.02
"""Share by which a plan's LR may differ from the run's, as it was written."""
UNLIKELY = 0.2
"""Probability below which a target is said to be most likely out of reach."""
SURE = 0.9
"""Probability below which it is said how likely a target is missed."""
MANY = 10.0
"""Times the epochs watched, within which it may be."""
DOUBTFUL = 0.5
"""How far a target is in reach below which the ceiling is told."""


@dataclass(frozen=True)
class Findings:
    """What was found of a run that has a first LR stage, before it is told.

    Attributes:
        scale: Of what is estimated; what follows is in its points.
        ahead: The passages.
        reference: The stage of the reference that was used; None without one.
        gain: Of the decays.
        target: Points.
        plan: The planned retraining; None where the present LR goes on.
        status: Of the estimate.
        extra: The epochs to add.
        reachable: Probability.
        final: Where the run's own decays ended, points; None without any.
        annealed: True where the reference has decays, but no first stage.
        ends: Where the plan ends by the law of schedules, in the metric's unit.
    """

    scale: Scale
    ahead: Passages
    reference: FirstStage | None
    gain: Gain
    target: float
    plan: Plan | None
    status: EstimateStatus
    extra: Interval
    reachable: float
    final: float | None
    annealed: bool
    ends: Interval | None

    @property
    def reached(self) -> bool:
        """Whether the target lies behind the run."""
        return self.status is EstimateStatus.REACHED

    @property
    def best(self) -> float:
        """The best 5-epoch mean that was watched, points."""
        return float(self.ahead.best[-1])

    @cached_property
    def doubt(self) -> str:
        """The sentence that says why a target may be out of reach; "" where nothing says so."""
        return _doubt(self)


def explain(found: Findings) -> str:
    """Return the status, the evidence, and what decided the estimate, a sentence each."""
    ahead, plan = found.ahead, found.plan
    sentences = [_said(found), _evidence(found)]
    if plan is None and not found.reached and found.reachable < SURE:
        time = MANY * float(ahead.stage.time[-1])
        until = (time + ahead.stage.lag) * ahead.stage.unit
        sentences.append(
            f"It is not reached within {until:.0f} epochs with probability "
            f"{1 - ahead.within(time, found.target):.2f}."
        )
    if not found.reached:
        sentences.append(_basis(ahead, found.reference))
    sentences.append(found.doubt)
    if plan is not None:
        if plan.tail and (found.final is None or found.final < found.target):
            sentences.append(_decays(found, plan))
        sentences.append(_pace(found, plan))
        sentences.append(_apart(found, plan))
    return " ".join(filter(None, sentences))


def _pace(found: Findings, plan: Plan) -> str:
    """Return how a plan at another LR than the run's is counted; "" for one at the same."""
    lr = found.ahead.stage.lr
    if abs(lr / plan.lr - 1) <= ROUNDED:
        return ""
    return (
        f"The plan's LR is {plan.lr:g}: it is taken to need {lr / plan.lr:.3g} times the epochs, "
        f"by equal LR time, and the first passage is that at the present LR of {lr:g}."
    )


def _apart(found: Findings, plan: Plan) -> str:
    """Return where the plan ends, if that and the extra epochs differ on the target; else ""."""
    scale, ends, target = found.scale, found.ends, found.target
    if ends is None or not plan.staged:
        return ""
    gap = scale.quality(ends.median) - target
    if (gap >= 0) == (found.extra.median <= 0):
        return ""
    metric = scale.metric
    low, high = metric.written(ends.low, 2), metric.written(ends.high, 2)
    side = metric.ahead if gap >= 0 else metric.behind
    weight = "half from each" if plan.tail else "the latter's"
    enough = "takes that many more epochs" if gap >= 0 else "is reached without more epochs"
    return (
        f"Two ways to tell differ here: by the law of schedules the plan ends at "
        f"{metric.written(ends.median, 2)} ({low} to {high}), "
        f"{scale.gap(target, target + gap)} {side} the target, and by the levels that were passed "
        f"the target {enough}; the extra epochs are {weight}."
    )


def _decays(found: Findings, plan: Plan) -> str:
    """Return what the decays are taken to bring, and from where that is known."""
    scale, gain, best = found.scale, found.gain, found.best
    up, unseen = scale.metric.sign > 0, gain.guessed and not found.annealed
    if scale.percent and plan.staged and not found.annealed:
        told = (
            f"The decays are taken to {'add' if up else 'take off'} "
            f"{scale.gap(best, best + gain.mean, 1)} (standard error "
            f"{_number(scale.gap(best, best + gain.stderr, 1))}; from {gain.source}) and "
            f"{'' if up else 'to add '}{plan.tail * plan.unit:.1f} epochs' worth of LR time."
        )
    else:
        told = "What the decays bring is taken from one law for all records and their LRs."
    if unseen:
        told += (
            " No run in evidence has decayed, so that this is a guess: give one that has, like an "
            "earlier one of the same network, as the reference (--match)."
        )
    return told


def _said(found: Findings) -> str:
    """Return the sentence of the status, as far as the numbers carry it."""
    scale, metric, final, target = found.scale, found.scale.metric, found.final, found.target
    if found.reached and final is not None and found.best < target:
        return (
            f"The target is reached after the decays: the last records have {scale.written(final)}."
        )
    if found.reached and final is not None and final < target:
        return (
            "The target is reached in the first LR stage, but after the decays the last records "
            f"have {scale.written(final)}, {metric.behind} it."
        )
    if found.reached and found.extra.median > 0:
        return "The target is reached within the epochs watched, but later than the plan decays."
    if found.status is EstimateStatus.UNREACHABLE and found.reachable < UNLIKELY:
        return (
            f"At this LR the {metric.name} is expected to level off {metric.behind} the target: "
            "more epochs will most likely not reach it."
        )
    return sentence(found.status, metric)


def _number(text: str) -> str:
    """Return a number without its unit."""
    return text.split(" ")[0]


def _evidence(found: Findings) -> str:
    """Return where the curve stands and how fast it moves."""
    scale, metric, stage = found.scale, found.scale.metric, found.ahead.stage
    best, target = found.best, found.target
    side = metric.behind if best < target else metric.ahead
    watched = (stage.time[-1] + stage.lag) * stage.unit
    text = (
        f"After {watched:g} epochs at LR {stage.lr:g} the best 5-epoch mean is "
        f"{scale.written(best)}, {scale.gap(best, target)} {side} the target"
    )
    slope, stderr = log_slope(stage)
    if math.isfinite(stderr):
        doubling, error = slope * math.log(2), stderr * math.log(2)
        text += (
            f"; the {metric.name} moves by {scale.gap(best, best + doubling, sign='+')} a doubling "
            f"of the epochs (standard error {_number(scale.gap(best, best + error))})"
        )
    return text + "."


def _basis(ahead: Passages, reference: FirstStage | None) -> str:
    """Return what the estimate rests on."""
    if reference is None or ahead.forecast.kind == "alone":
        return "The estimate rests on the curve's own trend in log epochs."
    ratio = f"{float(f'{reference.lr / ahead.stage.lr:.3g}'):g}"
    if ahead.forecast.kind == "rule":
        return f"The estimate rests on the ratio of the learning rates, {ratio}, alone."
    return (
        "The estimate rests on the levels that both runs have reached, matched with the reference "
        f"at an LR {ratio} times as large."
    )


def _doubt(found: Findings) -> str:
    """Return what `Findings.doubt` is."""
    scale, ahead, reference, target = found.scale, found.ahead, found.reference, found.target
    if found.reached or reference is None or ahead.forecast.kind != "matched":
        return ""
    top = ceiling(ahead.stage, reference)
    if top is not None and float(top.in_reach(np.array([target]))[0]) < DOUBTFUL:
        metric, now = scale.metric, found.best
        side = metric.ahead if top.ahead < 0 else metric.behind
        return (
            f"Only {top.left:.1%} of the training loss is left, and at equal training loss the "
            f"reference's {metric.name} is {scale.gap(now, now + top.ahead)} {side} this one's "
            f"(standard error {_number(scale.gap(now, now + top.stderr))}), which leaves the "
            "target in doubt."
        )
    if found.status is not EstimateStatus.UNREACHABLE:
        return ""
    if running_maximum(reference.accuracy)[-1] < target:
        return "The reference does not reach the target in its own first LR stage."
    return "The curve's own trend gets to the target much later than that, or never."


def about_the_records(told: str, status: EstimateStatus, small: LearningCurve, watched: int) -> str:
    """Return an explanation with what the records themselves leave open.

    Args:
        told: The explanation.
        status: Of the estimate.
        small: The curve.
        watched: Its records in the first LR stage.
    """
    epochs = small.epochs[small.epochs > 0] * small.unit
    if status is EstimateStatus.TOO_FEW and len(epochs) >= FEW:
        told = told.replace(
            sentence(status, small.metric),
            f"The first LR stage holds {watched} of the {len(epochs)} epochs watched, as the LR "
            f"falls after it, and a first passage is estimated from {FEW} epochs at a constant "
            "LR or more: the numbers are rough, and without a reference there are none below "
            "four. Watch a run whose LR stays for a while.",
        )
    if len(epochs) > 1 and epochs[0] > max(1.0, epochs[1] / 2) * (1 + SAME):
        told += (
            f" The first epoch with a record is {epochs[0]:g}, and epochs count from the start of "
            "retraining: if they are counted on from an earlier training, number them from 1, as "
            "the estimate is then another."
        )
    return told
