"""What `estimator_reachable.py` asks of runs that were recorded, and which of them are put aside.

Of such a run the truth is known to its end. The targets are those of `estimator_reachable_laws.py`,
and what a run at a larger LR had reached (the LR-pair protocol).

The split was written before anything was changed for it: methods and constants are chosen on the
kinds for development, and those that are put aside are judged once.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from estimator_protocol import TrainingRun, cases, is_clear, is_open, read_bench, read_own
from estimator_reachable_laws import Question, targets

from trainscope.convergence.bench import load, questions
from trainscope.convergence.bench.questions import best
from trainscope.convergence.passage import first_passage, running_maximum

WATCHED = (0.1, 0.2, 0.3, 0.5)
FEWEST = 6
ASIDE_OWN = ("teacher", "spectrum", "pairs", "modular")
CALIBRATED_AS = {
    "digits": ("digits", "retrainbench digits"),
    "mnist": ("mnist", "pairs", "retrainbench mnist"),
    "fashion-mnist": ("fmnist_2c2d", "retrainbench fashion-mnist"),
    "code-classes": ("text", "retrainbench code-classes"),
    "code-text": ("text", "retrainbench code-text"),
}
"""What is left out of the estimator's own calibration when it is asked about a problem."""


def runs_of(own: Path | None, *, aside: bool) -> list[TrainingRun]:
    """Return the runs of RetrainBench and of `calibration_runs.py` that are, or are not, aside."""
    found = read_bench(keep=lambda curve: is_open(curve) != aside)
    ours = [] if own is None else read_own(own)
    return found + [run for run in ours if (run.problem in ASIDE_OWN) == aside]


def read_lm(folder: Path) -> list[TrainingRun]:
    """Read the accuracies of language models at a constant LR, at even steps."""
    with (folder / "lm_runs.csv").open() as file:
        runs = {r["run"]: r for r in csv.DictReader(file) if r["schedule"] == "constant"}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    with (folder / "lm_curves.csv").open() as file:
        for row in csv.DictReader(file):
            if row["run"] in rows and row["val_acc"] and row["train_loss"]:
                step, accuracy, loss = (float(row[c]) for c in ("step", "val_acc", "train_loss"))
                rows[row["run"]].append((step, 100 * accuracy, loss))
    found = []
    for name, held in rows.items():
        if len(held) < 20:
            continue
        step, accuracies, losses = np.array(held).T
        even = np.linspace(0, step[-1], 1 + len(held))[1:]
        accuracies, losses = np.interp(even, step, accuracies), np.interp(even, step, losses)
        first = np.append(accuracies[:1], accuracies), np.append(losses[:1], losses)
        lr, source = float(runs[name]["peak_lr"]), runs[name]["source"]
        found.append(TrainingRun(source, f"{source} {name}", lr, *first, 0.0))
    return found


def recorded(runs: Sequence[TrainingRun]) -> dict[str, list[Question]]:
    """Return the questions of runs that were recorded, by problem."""
    found: dict[str, list[Question]] = {}
    for run in runs:
        if run.best[-1] < 2 * run.chance:
            continue
        end, reached = float(run.length), float(run.best[-1])
        for part in WATCHED:
            until = max(FEWEST, round(part * run.length))
            curve, now = run.curve(until), float(running_maximum(run.accuracy[1 : until + 1])[-1])
            found.setdefault(run.problem, []).extend(
                Question(curve, target, reached >= target, end, without=_without(run.problem))
                for target in targets(now, float(run.accuracy[0]), percent=True)
            )
    return found


def pairs(runs: Sequence[TrainingRun], *, reference: bool = False) -> dict[str, list[Question]]:
    """Return the questions of the LR-pair protocol, by problem."""
    found: dict[str, list[Question]] = {}
    for case in cases(runs):
        if case.small.problem.startswith("retrainbench") and not is_clear(case):
            continue
        time = np.arange(1.0, case.small.length + 1)
        at = float(first_passage(time, case.small.best, np.array([case.target]))[0])
        found.setdefault(case.small.problem, []).append(
            Question(
                case.small.curve(case.epochs),
                case.target,
                bool(np.isfinite(at)),
                float(case.small.length),
                case.large.curve() if reference else None,
                _without(case.small.problem),
            )
        )
    return found


def losses(*, aside: bool) -> dict[str, list[Question]]:
    """Return the questions of RetrainBench's test losses, by problem: levels at shares of the fall.

    And below each problem's name with ", pairs" those of its own protocol.
    """
    metric, found = "test_loss", {}
    kept = [curve for curve in load() if is_open(curve) != aside and not curve.diverged]
    for curve in kept:
        if curve.schedule != "constant":
            continue
        name, end = f"retrainbench {curve.kind}", float(curve.length * curve.steps)
        rising, start = best(curve, metric), -float(curve.values(metric)[0])
        for part in WATCHED:
            until = max(FEWEST, round(part * curve.length))
            small = curve.learning_curve(metric, until)
            now = float(running_maximum(-curve.values(metric)[1 : until + 1])[-1])
            found.setdefault(name, []).extend(
                Question(small, -target, bool(rising[-1] >= target), end, without=_without(name))
                for target in targets(now, start, percent=False)
            )
    for question in questions(kept, "passage", metric):
        name = f"retrainbench {question.watched.kind}"
        reached = bool(np.isfinite(question.truth))
        asked = Question(
            question.small, question.target, reached, question.horizon, without=_without(name)
        )
        found.setdefault(f"{name}, pairs", []).append(asked)
    return found


def _without(problem: str) -> tuple[str, ...]:
    """Return what the calibration leaves out when it is asked about a problem."""
    if problem.startswith("retrainbench "):
        return CALIBRATED_AS.get(problem.split()[1], ())
    return (problem,)
