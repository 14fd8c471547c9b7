"""Judge every entrant on RetrainBench: one table by kind of problem, one by optimizer.

    python benchmarks/retrainbench_table.py [--kind passage] [--metric accuracy] [--sample 2000]

What is asked is in `trainscope.convergence.bench.questions`, who answers in
`retrainbench_entrants.py`; `--entrant FILE` adds one. No curve of a question's problem may have
been looked at: trainscope's intervals are calibrated without it, and an entrant that gives no
interval gets one from its own errors on the other problems (the quantiles of the log of true over
said, by share watched; of true less said for ends). What is put aside (`--split "put aside"`) is
shown only when it is asked for. Columns: median and 90th percentile of |log2(said / true)| of the
steps to the passage, or of the length of the first stage, where the truth is known (of ends, of
the difference in the metric's unit); the share of cases with a reached target that were called
never; coverage of the 80 % interval where the truth is known, and over all, where a target that is
not reached is covered by an interval that goes on past the horizon; share of intervals without an
end; median log2 width of the others (of ends, width in the metric's unit).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from retrainbench_entrants import ENTRANTS, Entrant

from trainscope.convergence import Interval
from trainscope.convergence.bench import (
    KINDS,
    METRICS,
    PUT_ASIDE,
    BenchQuestion,
    load,
    questions,
    splits,
)
from trainscope.convergence.bench.splits import PUT_ASIDE_NETWORKS

LEVEL = 0.8
MOST = 1e12
BEYOND = 1.001
"""Horizons at which a target counts as reached, in the errors of others, that was not."""
FEWEST = 20
"""Errors on other problems below which no interval is made of them."""


@dataclass(frozen=True)
class Row:
    """An entrant's figures on some questions."""

    count: int
    median: float
    tail: float
    never: float
    known: float
    covered: float
    endless: float
    width: float

    def cells(self) -> list[str]:
        """Return the figures, without the interval's where there is none."""
        out = [f"{self.count}", f"{self.median:.3f}", f"{self.tail:.2f}", f"{self.never:.2f}"]
        if math.isnan(self.endless):
            return [*out, "-", "-", "-", "-"]
        parts = self.known, self.covered, self.endless, self.width
        return [*out, *("-" if math.isnan(part) else f"{part:.2f}" for part in parts)]


def length(question: BenchQuestion, value: float) -> float:
    """Return what errors are told of: the step, or the whole first stage, or the value itself."""
    if question.kind == "extra":
        return question.until * question.watched.steps + value
    return value


def error(question: BenchQuestion, said: float, true: float) -> float:
    """Return the signed error of an answer: log2 of steps, or in the metric's unit."""
    if math.isnan(said):
        return math.inf
    if question.kind == "final":
        return said - true
    a, b = (min(max(length(question, x), 1e-3), MOST) for x in (said, true))
    return math.log2(a / b)


def with_intervals(asked: Sequence[BenchQuestion], said: Sequence[Interval]) -> list[Interval]:
    """Give answers without intervals those of its errors on other problems, none put aside."""
    if not any(math.isnan(answer.low) for answer in said):
        return list(said)
    late = np.array([_late(q, a.median) for q, a in zip(asked, said, strict=True)])
    problem = np.array([q.watched.problem for q in asked])
    open_to_all = np.array([q.watched.network not in PUT_ASIDE_NETWORKS for q in asked])
    share = np.array([q.share if q.kind == "passage" else 0.0 for q in asked])
    found = []
    for i, (question, answer) in enumerate(zip(asked, said, strict=True)):
        others = late[open_to_all & (problem != problem[i]) & (share == share[i])]
        if len(others) < FEWEST or not math.isnan(answer.low) or math.isnan(answer.median):
            found.append(answer)
            continue
        low = np.quantile(others, (1 - LEVEL) / 2, method="lower")
        high = np.quantile(others, (1 + LEVEL) / 2, method="higher")
        if question.kind == "final":
            ends = answer.median + low, answer.median + high
        else:
            offset = length(question, 0.0)
            whole = min(length(question, answer.median), MOST)
            with np.errstate(over="ignore"):
                ends = tuple(max(whole * np.exp2(x) - offset, 0.0) for x in (low, high))
        found.append(Interval(answer.median, float(ends[0]), float(ends[1])))
    return found


def _late(question: BenchQuestion, said: float) -> float:
    """Return how late the truth is; where it is not reached, it lies beyond the horizon."""
    if math.isinf(said):
        return 0.0 if math.isinf(question.truth) else -math.inf
    true = question.truth if math.isfinite(question.truth) else BEYOND * question.horizon
    return -error(question, said, true)


def score(asked: Sequence[BenchQuestion], said: Sequence[Interval]) -> Row:
    """Return the figures of some questions."""
    final = asked[0].kind == "final"
    true = np.array([q.truth for q in asked])
    horizon = np.array([q.horizon for q in asked])
    low, high = np.array([(a.low, a.high) for a in said]).T
    known = np.isfinite(true)
    off = np.array([abs(error(q, a.median, q.truth)) for q, a in zip(asked, said, strict=True)])
    covered = np.where(known, (low <= true) & (true <= high), high > horizon)
    never = np.isinf([a.median for a in said])
    endless = np.isinf(high) | (high >= MOST)
    ends = [
        (a.low, a.high) if final else (length(q, a.low), length(q, a.high))
        for q, a in zip(asked, said, strict=True)
    ]
    widths = [b - a if final else math.log2(max(b, 1e-3) / max(a, 1e-3)) for a, b in ends]
    whole = not np.isnan(low).any()
    return Row(
        count=len(asked),
        median=float(np.median(off[known])) if known.any() else math.nan,
        tail=float(np.quantile(off[known], 0.9)) if known.any() else math.nan,
        never=float(never[known].mean()) if known.any() else math.nan,
        known=float(covered[known].mean()) if known.any() else math.nan,
        covered=float(covered.mean()),
        endless=float(endless.mean()) if whole else math.nan,
        width=float(np.median(np.array(widths)[~endless])) if not endless.all() else math.nan,
    )


HEAD = ["cases", "median", "p90", "never", "known", "all", "endless", "width"]


def show(
    title: str,
    asked: Sequence[BenchQuestion],
    answers: dict[str, list[Interval]],
    by: Callable[[BenchQuestion], str],
) -> None:
    """Print the figures of every entrant by groups of questions, as a table in Markdown."""
    lines = [[title, "entrant", *HEAD]]
    labels = [by(question) for question in asked]
    for label in sorted(set(labels)):
        part = [i for i, other in enumerate(labels) if other == label]
        group = [asked[i] for i in part]
        for place, (name, said) in enumerate(answers.items()):
            row = score(group, [said[i] for i in part])
            lines.append([label if place == 0 else "", name, *row.cells()])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    print()
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |")


def added(path: Path) -> tuple[str, str, Entrant]:
    """Return the kind, the name and the function of an entrant in a file of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "KIND", "passage"), path.stem, module.answer


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=KINDS, default="passage")
    parser.add_argument("--metric", choices=tuple(METRICS), default="accuracy")
    parser.add_argument("--table", type=Path, help="of curves; by default the package's")
    parser.add_argument("--split", help="judge one split alone, like 'put aside'")
    parser.add_argument("--sample", type=int, help="judge so many questions, drawn once")
    parser.add_argument("--only", default="", help="entrants whose name holds this")
    parser.add_argument("--entrant", type=Path, help="a file with one more")
    args = parser.parse_args()
    entrants = dict(ENTRANTS[args.kind])
    if args.entrant:
        kind, name, function = added(args.entrant)
        entrants = {**entrants, name: function} if kind == args.kind else entrants
    entrants = {name: function for name, function in entrants.items() if args.only in name}
    found = splits(load(args.table))
    if args.split and args.split not in found:
        raise SystemExit(f"no split is named '{args.split}'; there are {', '.join(found)}")
    folds = [split for name, split in found.items() if name != PUT_ASIDE]
    asked = [q for split in folds for q in questions(split, args.kind, args.metric)]
    if args.split == PUT_ASIDE:
        asked += questions(found[PUT_ASIDE], args.kind, args.metric)
    if args.sample and args.sample < len(asked):
        drawn = np.random.default_rng(0).permutation(len(asked))[: args.sample]
        asked = [asked[i] for i in sorted(drawn)]
    judged = [_judged(q, args.split) for q in asked]
    answers = {}
    for name, answer in entrants.items():
        begun = time.perf_counter()
        said = with_intervals(asked, [answer(question) for question in asked])
        cost = 1e3 * (time.perf_counter() - begun) / max(len(asked), 1)
        answers[f"{name} ({cost:.1f} ms)"] = [a for a, yes in zip(said, judged, strict=True) if yes]
    asked = [q for q, yes in zip(asked, judged, strict=True) if yes]
    known = sum(math.isfinite(q.truth) for q in asked)
    print(f"{args.kind}, {args.metric}: {len(asked)} questions, {known} with a known answer")
    if args.kind == "passage":
        show("by share watched", asked, answers, lambda q: f"{q.share:.0%}")
    if args.kind == "final":
        show("by evidence", asked, answers, lambda q: q.evidence)
    show("all", asked, answers, lambda q: args.split or "every problem")
    show("by kind of problem", asked, answers, lambda q: q.watched.kind)
    show("by optimizer", asked, answers, lambda q: q.watched.optimizer)


def _judged(question: BenchQuestion, split: str | None) -> bool:
    """Return whether a question belongs to the split that is shown."""
    aside = question.watched.network in PUT_ASIDE_NETWORKS
    if split is None:
        return True
    return aside if split == PUT_ASIDE else question.watched.problem == split and not aside


if __name__ == "__main__":
    main()
