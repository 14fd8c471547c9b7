"""Who answers the questions of RetrainBench. An entrant is a function from a question to an answer.

To add one, write a file with a function `answer` of a `BenchQuestion` that returns an `Interval`
in the unit of the question's truth (steps, steps to add, or the metric's value), with NaN for its
ends where it has none: the table then gives it ends from its own errors on other problems. `KIND`
in the file says which questions it answers. Then

    python benchmarks/retrainbench_table.py --entrant FILE
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from estimator_baselines import log_line, lr_ratio, time_factor
from estimator_protocol import Case, TrainingRun
from estimator_reachable_cases import CALIBRATED_AS
from retrainbench_laws import annealing_law, multi_power_law, power_law

from trainscope.convergence import Estimate, Interval, estimate_extra_epochs
from trainscope.convergence.bench import METRICS, BenchCurve, BenchQuestion, at_the_end
from trainscope.convergence.calibration import load as load_calibration
from trainscope.convergence.passage import first_passage, running_maximum

Entrant = Callable[[BenchQuestion], Interval]


def point(value: float) -> Interval:
    """Return an answer without an interval."""
    return Interval(value, math.nan, math.nan)


def quality(curve: BenchCurve, metric: str) -> np.ndarray:
    """Return what rises as the run gets better, [N+1]."""
    return METRICS[metric].sign * curve.values(metric)


def as_case(question: BenchQuestion) -> Case:
    """Return a question over records as the LR-pair protocol has it."""

    def run(curve: BenchCurve, last: int) -> TrainingRun:
        values = quality(curve, question.metric)[: last + 1]
        loss = curve.train_loss[: last + 1]
        return TrainingRun(curve.problem, curve.kind, curve.peak_lr, values, loss, 0.0)

    small, reference = question.watched, question.reference
    assert reference is not None
    large = run(reference, reference.first or reference.length)
    target = METRICS[question.metric].sign * question.target
    share = 1.0
    if question.kind == "passage":
        time = np.arange(1.0, large.length + 1)
        at = first_passage(time, running_maximum(large.accuracy[1:]), np.array([target]))
        share = min(float(at[0]) / large.length, 1.0)
    watched = run(small, small.length)
    return Case(
        watched,
        large,
        question.lr_ratio,
        share,
        question.share,
        question.until,
        target,
        question.truth / small.steps,
    )


def of_case(method: Callable[[Case], float]) -> Entrant:
    """Return an entrant that answers as one of the LR-pair protocol does, by records."""

    def answer(question: BenchQuestion) -> Interval:
        steps = question.watched.steps
        found = method(as_case(question))
        if question.kind == "extra":
            found = max(found - question.until, 0.0)
        return point(found * steps)

    return answer


def estimate(question: BenchQuestion, *, reference: bool) -> Estimate:
    """Return the estimator's answer, calibrated without the question's problem."""
    schedule = (None, None) if question.schedule is None else question.schedule
    small = question.small
    # Where a plan ends does not depend on the target.
    target = float(small.accuracy[-1]) if question.kind == "final" else question.target
    return estimate_extra_epochs(
        small,
        target,
        question.large if reference else None,
        schedule=schedule[0],
        total_epochs=schedule[1],
        calibration=load_calibration(*CALIBRATED_AS.get(question.watched.problem, ())),
    )


def ours_passage(question: BenchQuestion) -> Interval:
    """Return trainscope's answer with the large run."""
    return estimate(question, reference=True).first_passage


def ours_passage_alone(question: BenchQuestion) -> Interval:
    """Return trainscope's answer without it."""
    return estimate(question, reference=False).first_passage


def ours_extra(question: BenchQuestion) -> Interval:
    """Return trainscope's answer with the decayed run."""
    return estimate(question, reference=True).extra_epochs


def ours_extra_alone(question: BenchQuestion) -> Interval:
    """Return trainscope's answer without it."""
    return estimate(question, reference=False).extra_epochs


def ours_final(question: BenchQuestion) -> Interval:
    """Return where trainscope says that the plan ends; NaN where it does not say."""
    said = estimate(question, reference=True).final
    return Interval(math.nan, math.nan, math.nan) if said is None else said


def power_law_3(question: BenchQuestion) -> Interval:
    """Return where a power law with an asymptote arrives, fitted by least squares."""
    return _power_law(question, shift=False)


def power_law_4(question: BenchQuestion) -> Interval:
    """Return the same of one whose time has an origin of its own."""
    return _power_law(question, shift=True)


def _power_law(question: BenchQuestion, *, shift: bool) -> Interval:
    n, small = question.until, question.watched
    values = quality(small, question.metric)[1 : n + 1]
    target = METRICS[question.metric].sign * question.target
    arrives = power_law(np.arange(1.0, n + 1), values, target, shift=shift)
    return point(max(arrives, float(n)) * small.steps)


def last_value(question: BenchQuestion) -> Interval:
    """Return the mean of the last three records watched: nothing is gained."""
    values = question.watched.values(question.metric)
    return point(float(values[question.until - 2 : question.until + 1].mean()))


def gain_of_the_reference(question: BenchQuestion) -> Interval:
    """Return the last value and what the reference gained after its first stage."""
    reference = question.reference
    if reference is None or reference.schedule != "steps":
        return last_value(question)
    values = reference.values(question.metric)
    before = float(values[reference.first - 2 : reference.first + 1].mean())
    gain = at_the_end(reference, question.metric) - before
    return point(last_value(question).median + gain)


PASSAGE: Mapping[str, Entrant] = {
    "trainscope, with the large run": ours_passage,
    "trainscope, alone": ours_passage_alone,
    "LR time": of_case(lr_ratio),
    "fitted time factor": of_case(time_factor),
    "line in log steps": of_case(log_line),
    "power law, 3 parameters": power_law_3,
    "power law, 4 parameters": power_law_4,
}
EXTRA: Mapping[str, Entrant] = {
    "trainscope, with the decayed run": ours_extra,
    "trainscope, alone": ours_extra_alone,
    "LR time": of_case(lr_ratio),
    "fitted time factor": of_case(time_factor),
}
FINAL: Mapping[str, Entrant] = {
    "trainscope": ours_final,
    "the last value": last_value,
    "the last value and the reference's gain": gain_of_the_reference,
    "annealing law": annealing_law,
    "multi-power law": multi_power_law,
}
ENTRANTS: Mapping[str, Mapping[str, Entrant]] = {
    "passage": PASSAGE,
    "extra": EXTRA,
    "final": FINAL,
}
