"""An Estimate as `trainscope estimate` prints it."""

from __future__ import annotations

from trainscope.convergence import Estimate, EstimateStatus, Interval, LearningCurve
from trainscope.convergence.estimate import THE_WATCHED
from trainscope.records import Metric

HALF = 0.5


def estimate_lines(estimate: Estimate, small: LearningCurve, *, planned: bool) -> list[str]:
    """Return the numbers, a line each, and the sentences that go with them.

    Args:
        estimate: What was estimated.
        small: The run that it is of.
        planned: Whether the target is meant after the decays of a plan.
    """
    metric = small.metric
    decays = " after the decays" if planned else ""
    lines = [
        f"target           {metric.written(estimate.target, 2)}{decays}",
        f"status           {estimate.status}",
        *(_known(estimate, small) if estimate.is_known else _unknown(small)),
    ]
    if estimate.final is not None:
        lines.append(f"the plan ends    at {_ending(estimate.final, metric)}")
    if estimate.lr_time_bound is not None:
        said = _bound_in_words(estimate.lr_time_bound, estimate, small)
        lines.append(f"equal LR time    {small.per} {estimate.lr_time_bound:.0f}, {said}")
    early = estimate.early_decay
    sentences = (estimate.explanation, estimate.withheld, early.explanation if early else "")
    return lines + [sentence for sentence in sentences if sentence]


def _unknown(small: LearningCurve) -> list[str]:
    return ["first passage    unknown", f"{f'extra {small.per}s':<16} unknown"]


def _known(estimate: Estimate, small: LearningCurve) -> list[str]:
    """Return the lines of the passage, the extra epochs, and the chance of ever getting there.

    What the brackets hold stands once, on the first line that has an interval.
    """
    passage = estimate.first_passage.in_words(small.per)
    extra = estimate.extra_epochs.in_words(more=small.per)
    brackets = f" ({100 * estimate.level:g} % interval in brackets)"
    first = brackets if "(" in passage else ""
    second = brackets if "(" in extra and not first else ""
    # What is unlikely is told as of those curves that do get there.
    told = not estimate.first_passage.is_late
    ever = ", if at all" if estimate.reachable < HALF and told else ""
    done = estimate.status is EstimateStatus.REACHED
    if done and estimate.first_passage.median > small.epochs[-1]:  # the decays brought it there
        ever = " at the first LR"
    beyond = estimate.lengthens == THE_WATCHED
    added = " beyond those watched" if beyond else f" to add to {estimate.lengthens}"
    added = "" if beyond and "more" in extra else added
    return [
        f"first passage    {passage}{ever}{first}",
        f"{f'extra {small.per}s':<16} {extra}{added}{second}",
        f"reachable        with probability {estimate.reachable:.2f}",
    ]


def _bound_in_words(bound: float, estimate: Estimate, small: LearningCurve) -> str:
    """Say what the epoch of equal LR time is worth beside the estimate."""
    if estimate.status is not EstimateStatus.REACHED:
        if len(small) and bound <= small.epochs[-1]:
            return "which has passed: here it is no upper bound"
        if bound < estimate.first_passage.median:
            return "earlier than the estimate: here it is hardly an upper bound"
        if bound > estimate.first_passage.high and not estimate.first_passage.is_open:
            return "an upper bound as a rule, and later than all of the interval"
    return "an upper bound as a rule"


def _ending(final: Interval, metric: Metric) -> str:
    """Write where a plan ends, like "93.12 % (92.40 to 93.77)"."""
    low, high = (metric.written(value, 2).split(" ")[0] for value in (final.low, final.high))
    return f"{metric.written(final.median, 2)} ({low} to {high})"
