"""The protocol of RetrainBench: what is asked of an estimator, and what is true.

Three questions, of any metric, each with an answer that lies in the table:

- passage: a run at a small constant LR is watched for a share of its length, and another at an LR
  2.5, 4 or 10 times as large is known. The target is what the large run had reached (the best so
  far of the centred mean of 5 records) at a share of its length. At which step does the small run
  first reach it?
- extra: a run at a small LR is watched to the end of its first stage; another at a larger LR is
  known with the decays after its own. How many steps must be added to the first stage so that the
  metric after the decays is as good as the other's?
- final: a run is watched to the end of its first stage, or to the half of a cosine, and the LRs of
  the rest are known. Where does it end?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainscope.convergence.bench.curves import METRICS, BenchCurve
from trainscope.convergence.bench.splits import BenchSplit
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import Floats, first_passage, noise, running_maximum
from trainscope.convergence.plan import own_schedule
from trainscope.errors import RecordError

KINDS = ("passage", "extra", "final")
WATCHED = (0.1, 0.2, 0.3, 0.5)
PAIRS = ((2.5, 2, (0.3,)), (4.0, 3, (0.2, 0.5)), (10.0, 5, (0.1, 0.2)))
"""LR ratio, its fifths of a decade, and where on the large run the target is."""
FEWEST = 6
"""Records that are watched at least."""
CLEAR = 4.0
"""Standard deviations of a record's noise by which a target of a passage lies above the start."""
LUCK = 2.0
"""The same, by which a target after decays lies above what the plan as it is ends with."""
AT_THE_END = 3
"""Records whose mean is the end of a run whose last LR is constant."""


@dataclass(frozen=True, eq=False)
class BenchQuestion:
    """One question and its answer.

    Attributes:
        kind: One of `KINDS`.
        metric: Its name in `METRICS`.
        watched: The run that is watched.
        until: The last record that may be looked at.
        share: That, of the run's length.
        reference: Another run of the same family, which may be looked at whole; None for none.
        evidence: What the reference is, in words.
        target: Value to reach; NaN in a question of kind "final".
        truth: The step of the first passage, the steps to add, or the value at the end. Infinite
            where the target was not reached as far as is known.
        horizon: The step, or the number of steps to add, up to which it is known.
        planned: The run whose LRs are the plan, first of all those that were watched; None where
            the present LR goes on.
    """

    kind: str
    metric: str
    watched: BenchCurve
    until: int
    share: float
    reference: BenchCurve | None
    evidence: str
    target: float
    truth: float
    horizon: float
    planned: BenchCurve | None = None

    @property
    def small(self) -> LearningCurve:
        """Return what was watched."""
        return self.watched.learning_curve(self.metric, self.until)

    @property
    def large(self) -> LearningCurve | None:
        """Return the reference."""
        return None if self.reference is None else self.reference.learning_curve(self.metric)

    @property
    def lr_ratio(self) -> float:
        """Return the LR of the reference over that of the run watched; NaN without one."""
        if self.reference is None:
            return math.nan
        return self.reference.peak_lr / self.watched.peak_lr

    @property
    def schedule(self) -> tuple[str, float] | None:
        """Return the planned schedule as `trainscope.estimate` takes it, and its total of steps."""
        return None if self.planned is None else own_schedule(self.planned.learning_curve())


def questions(
    split: BenchSplit | Sequence[BenchCurve],
    kind: str = "passage",
    metric: str = "accuracy",
    *,
    watched: Sequence[float] = WATCHED,
) -> list[BenchQuestion]:
    """Return the questions of the curves that a split judges on.

    Args:
        split: Or curves.
        kind: One of `KINDS`.
        metric: One of `METRICS`.
        watched: Shares of a run's length, of a passage.

    Raises:
        RecordError: No kind or no metric has that name.
    """
    if kind not in KINDS:
        raise RecordError(f"no question is of kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if metric not in METRICS:
        raise RecordError(f"RetrainBench has no {metric!r}; it has {', '.join(METRICS)}")
    families: dict[tuple[str, str, str, str, int], list[BenchCurve]] = {}
    for curve in split.judge if isinstance(split, BenchSplit) else split:
        if not curve.diverged:
            families.setdefault(curve.family, []).append(curve)
    found: list[BenchQuestion] = []
    for group in families.values():
        if kind == "passage":
            found += _passages(group, metric, watched)
        else:
            found += _extras(group, metric) if kind == "extra" else _finals(group, metric)
    return found


def best(curve: BenchCurve, metric: str) -> Floats:
    """Return the best so far of the centred mean, times the metric's sign, from record 1, [N]."""
    return running_maximum(METRICS[metric].sign * curve.values(metric)[1:])


def _passages(
    group: Sequence[BenchCurve], metric: str, watched: Sequence[float]
) -> Iterator[BenchQuestion]:
    constants = [curve for curve in group if curve.schedule == "constant"]
    sign = METRICS[metric].sign
    for small in constants:
        time, rising = np.arange(1.0, small.length + 1), best(small, metric)
        for large in constants:
            for share in _shares(small, large):
                at = np.arange(1.0, large.length + 1)
                target = float(np.interp(share * large.length, at, best(large, metric)))
                start = sign * float(small.values(metric)[0])
                if target - start < CLEAR * noise(large.values(metric)[1:]):
                    continue
                truth = float(first_passage(time, rising, np.array([target]))[0])
                for part in watched:
                    until = max(FEWEST, round(part * small.length))
                    if truth > until:
                        yield BenchQuestion(
                            "passage",
                            metric,
                            small,
                            until,
                            part,
                            large,
                            f"constant, {large.peak_lr / small.peak_lr:.2g} times the LR",
                            sign * target,
                            truth * small.steps,
                            float(small.length * small.steps),
                        )


def _shares(small: BenchCurve, large: BenchCurve) -> tuple[float, ...]:
    fifths = 5 * np.log10(large.peak_lr / small.peak_lr)
    return next((shares for _, apart, shares in PAIRS if abs(fifths - apart) < 0.1), ())


def _extras(group: Sequence[BenchCurve], metric: str) -> Iterator[BenchQuestion]:
    sign = METRICS[metric].sign
    for schedule in ("steps", "wsd"):
        decayed: dict[float, list[BenchCurve]] = {}
        for curve in group:
            if curve.schedule == schedule:
                decayed.setdefault(curve.peak_lr, []).append(curve)
        runs = {lr: sorted(each, key=lambda c: c.first) for lr, each in decayed.items()}
        for lr, mine in runs.items():
            firsts = np.array([float(curve.first) for curve in mine])
            rising = np.maximum.accumulate([sign * at_the_end(curve, metric) for curve in mine])
            for larger, its in runs.items():
                if larger <= lr:
                    continue
                luck = LUCK * noise(mine[-1].values(metric)[1:])
                for planned, end in zip(mine[:-1], rising[:-1], strict=True):
                    for reference in its:
                        target = sign * at_the_end(reference, metric)
                        if end + luck >= target or planned.first < FEWEST:
                            continue
                        length = float(np.interp(target, rising, np.log(firsts), right=np.inf))
                        yield BenchQuestion(
                            "extra",
                            metric,
                            planned,
                            planned.first,
                            planned.first / firsts[-1],
                            reference,
                            f"{schedule} after {reference.first} records, "
                            f"{larger / lr:.2g} times the LR",
                            sign * target,
                            (float(np.exp(length)) - planned.first) * planned.steps,
                            (firsts[-1] - planned.first) * planned.steps,
                            planned,
                        )


def _finals(group: Sequence[BenchCurve], metric: str) -> Iterator[BenchQuestion]:
    for curve in group:
        if curve.schedule not in ("wsd", "cosine"):
            continue
        until = curve.first or curve.length // 2
        if until < FEWEST:
            continue
        for evidence, reference in _references(curve, group):
            yield BenchQuestion(
                "final",
                metric,
                curve,
                until,
                until / curve.length,
                reference,
                evidence,
                math.nan,
                at_the_end(curve, metric),
                float(curve.length * curve.steps),
                curve,
            )


def _references(
    curve: BenchCurve, group: Sequence[BenchCurve]
) -> Iterator[tuple[str, BenchCurve | None]]:
    """Yield what is known beside the watched run: nothing, a constant LR, or decays in steps."""
    yield "nothing else", None
    steps = [
        other for other in group if other.schedule == "steps" and other.first < 2 * curve.length
    ]
    same = [other for other in steps if other.peak_lr == curve.peak_lr]
    apart = [other for other in steps if other.peak_lr != curve.peak_lr]
    constant = [
        other
        for other in group
        if other.schedule == "constant" and other.peak_lr > 1.01 * curve.peak_lr
    ]
    for name, choice in (
        ("a constant LR, larger", constant),
        ("decays in steps from the same peak LR", same),
        ("decays in steps from another peak LR", apart),
    ):
        if choice:
            yield name, max(choice, key=lambda other: (other.first, other.peak_lr))


def at_the_end(curve: BenchCurve, metric: str) -> float:
    """Return the value that a run ends with: of a constant last LR, the mean of three records."""
    count = AT_THE_END if curve.schedule in ("steps", "constant") else 1
    return float(curve.values(metric)[-count:].mean())
