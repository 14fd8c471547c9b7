"""The estimate where only the ends of two runs are known, as in a published table."""

from __future__ import annotations

import math

from trainscope.convergence.calibration import Calibration
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.decay_gain import final_quality
from trainscope.convergence.estimate import Estimate, EstimateStatus, Interval, sentence
from trainscope.convergence.forecast import RULE_ERROR
from trainscope.convergence.plan import Plan
from trainscope.convergence.stage import FirstStage


def from_ends(
    small: LearningCurve,
    target: float,
    level: float,
    stage: FirstStage,
    reference: FirstStage,
    plan: Plan | None,
    calibration: Calibration,
) -> Estimate:
    """Return the estimate from equal LR time alone: no accuracy of the first stage is known.

    The reference is taken to have what it takes at the end of its own first stage; as much LR time
    takes the small run longer by the ratio of the LRs, and the rule's errors give the interval.

    Args:
        small: The run; its accuracies, if any, come after its decays.
        target: In the metric's unit.
        level: Probability that the interval is to hold the truth with.
        stage: The small run's first stage, without records.
        reference: The reference's first stage.
        plan: The planned retraining; the run itself where there is none.
        calibration: Errors of the rule.
    """
    errors = calibration["rule"]
    first = stage.end + stage.lag if plan is None else plan.first
    pace = stage.lr if plan is None else plan.lr
    bound = reference.end * reference.lr / pace
    final = final_quality(small, stage)
    done = final is not None and final >= small.scale.quality(target)
    ends = [
        bound * math.exp(RULE_ERROR * float(errors.quantile(p)))
        for p in (0.5, (1 - level) / 2, (1 + level) / 2)
    ]
    extra = [0.0 if done else max(0.0, end - first) for end in ends]
    status = EstimateStatus.REACHED if done else EstimateStatus.TOO_FEW
    text = (
        f"No {small.metric.name} of the first LR stage is known, so that the estimate rests on "
        f"equal LR time alone: the reference's {reference.end * reference.unit:g} epochs at an LR "
        f"{reference.lr / pace:.3g} times as large."
    )
    return Estimate(
        target=target,
        level=level,
        first_passage=Interval(*(end + first for end in extra)),
        extra_epochs=Interval(*extra),
        reachable=1.0 if done else 0.5,
        lr_time_bound=bound,
        status=status,
        metric=small.metric,
        explanation=f"{sentence(status, small.metric)} {text}",
    )
