"""Judge where a plan at another LR than the one watched is said to end, on RetrainBench.

    python benchmarks/estimator_other_lrs.py [--metric accuracy|test_loss] [--aside] [--sample 3000]

A run at a constant LR is watched for 30 % of its length, nothing else is known, and the plan is
another run of the same network from the same start: of a constant LR, in steps or a cosine, at .1
to 10 times the LR. The truth is what that run ended with. Without --aside the questions are of the
networks for development (`above`, `below` and `LOUDER` were chosen on their accuracies), with it of
those put aside.

Columns: cases; median of truth - median; median error; share of 80 % intervals that hold the truth;
median and 90 % quantile of their widths. Points of accuracy, or nats.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from trainscope.convergence import estimate_extra_epochs
from trainscope.convergence.bench import BenchCurve, load, splits
from trainscope.convergence.bench.questions import FEWEST, at_the_end
from trainscope.convergence.bench.splits import PUT_ASIDE
from trainscope.convergence.estimate import Interval
from trainscope.convergence.plan import own_schedule, written

SHARE = 0.3
FURTHEST = 11.0
"""Ratio of LRs up to which, and down to whose inverse, plans are asked about."""
KINDS = ("constant", "steps", "cosine")
RATIOS = {0.8: "lower", 1.2: "the same", 3.5: "2 to 3 times", 5.0: "4 times", np.inf: "6 to 10"}
TARGET = {"accuracy": 99.9, "test_loss": 1e-6}
"""Any that is not reached: where the plan ends does not depend on it."""
Answer = tuple[str, float, Interval, float]


def plans(curves: Iterable[BenchCurve]) -> Iterator[tuple[BenchCurve, BenchCurve]]:
    """Yield every run at a constant LR, with every other that may be a plan for it."""
    families: dict[object, list[BenchCurve]] = defaultdict(list)
    for curve in curves:
        if not curve.diverged:
            families[curve.family].append(curve)
    for group in families.values():
        for small in (curve for curve in group if curve.schedule == "constant"):
            for other in group:
                near = 1 / FURTHEST < other.peak_lr / small.peak_lr < FURTHEST
                if other is not small and other.schedule in KINDS and near:
                    yield small, other


def answers(pairs: Iterable[tuple[BenchCurve, BenchCurve]], metric: str) -> Iterator[Answer]:
    """Yield the plan's shape, the ratio of its LR, where it is said to end, and where it does."""
    for small, other in pairs:
        said = _said(small, max(FEWEST, round(SHARE * small.length)), other, metric)
        if said is not None:
            yield other.schedule, other.peak_lr / small.peak_lr, said, at_the_end(other, metric)


def _said(small: BenchCurve, until: int, other: BenchCurve, metric: str) -> Interval | None:
    planned = other.learning_curve(metric)
    schedule, total = own_schedule(planned) or (
        written([(0.0, other.peak_lr)]),
        float(planned.lr_epochs[-1]),
    )
    watched = small.learning_curve(metric, until)
    return estimate_extra_epochs(watched, TARGET[metric], None, 0.8, schedule, total).final


def main() -> None:
    """Print one row for each shape and ratio, and the same for larger groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", choices=TARGET, default="accuracy")
    parser.add_argument("--aside", action="store_true")
    parser.add_argument("--table", type=Path, help="of curves; by default the package's")
    parser.add_argument("--sample", type=int, help="judge so many questions, drawn once")
    asked = parser.parse_args()
    split = splits(load(asked.table))[PUT_ASIDE]

    pairs = list(plans(split.judge if asked.aside else split.develop))
    if asked.sample and asked.sample < len(pairs):
        drawn = np.random.default_rng(0).permutation(len(pairs))[: asked.sample]
        pairs = [pairs[i] for i in sorted(drawn)]
    found = list(answers(pairs, asked.metric))
    show(found, lambda answer: (answer[0], _place(answer[1])))
    show(found, _together)


def _place(ratio: float) -> str:
    return next(word for most, word in RATIOS.items() if ratio < most)


def _together(answer: Answer) -> tuple[str, str]:
    """Return the group of a question in the short table."""
    shape, place = answer[0], _place(answer[1])
    if place == "lower":
        return "any", place
    decays = "constant" if shape == "constant" else "steps or cosine"
    return decays, place if place == "the same" else "2 to 10 times"


def show(found: Iterable[Answer], group: Callable[[Answer], tuple[str, str]]) -> None:
    """Print one row for each group of answers."""
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in found:
        groups[group(answer)].append(answer)
    print("| plan | LR | cases | off | error | held | width | p90 |")
    print("|---|---|---|---|---|---|---|---|")
    for (shape, place), told in sorted(groups.items()):
        off = np.array([truth - said.median for _, _, said, truth in told])
        held = np.mean([said.low <= truth <= said.high for _, _, said, truth in told])
        widths = np.array([said.high - said.low for _, _, said, _ in told])
        print(
            f"| {shape} | {place} | {len(told)} | {np.median(off):+.3f} "
            f"| {np.median(np.abs(off)):.3f} | {held:.2f} | {np.median(widths):.2f} "
            f"| {np.quantile(widths, 0.9):.2f} |"
        )
    print()


if __name__ == "__main__":
    main()
