"""What `estimator_reachable.py` asks, of which curves, and which of these are put aside.

Drawn curves have a law and so a truth: a target comes within `HORIZON` times what was watched, or
it does not. Of runs that were recorded the truth is known to their end. The targets of both are
shares of what the curve lacks of 100 %, whatever becomes of it, so that nothing of the answer is in
the question; of recorded runs also what a run at a larger LR had reached.

The split was written before anything was changed for it: methods and constants are chosen on the
kinds for development, and those that are put aside are judged once.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibrate_estimator import is_clear
from estimator_protocol import TrainingRun, cases
from numpy.typing import NDArray
from retrainbench_entrants import CALIBRATED_AS

from trainscope.convergence import LearningCurve
from trainscope.convergence.bench import load
from trainscope.convergence.bench.splits import PUT_ASIDE_NETWORKS
from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.passage import first_passage, running_maximum
from trainscope.convergence.passages import HORIZON

Floats = NDArray[np.float64]

DRAWN = 400
"""Curves of each law."""
SHARES = (0.03, 0.1, 0.2, 0.4, 0.8)
"""Of what the best so far lacks of 100 %."""
WATCHED = (0.1, 0.2, 0.3, 0.5)
FEWEST = 6
ASIDE_LAWS = ("stretched exponential", "two time scales", "plateau, then a jump")
ASIDE_OWN = ("teacher", "spectrum", "pairs", "modular")
ASIDE_FAMILIES = {
    ("fashion-mnist", "resnet", "momentum", "2:4 0.5", 0),
    ("code-classes", "character-cnn", "sgd", "unstructured 0.98", 0),
    ("digits", "resnet", "momentum", "unstructured 0.98", 0),
    ("fashion-mnist", "lenet", "adamw", "filter 0.5", 0),
    ("mnist", "vgg", "momentum", "unstructured 0.9", 0),
    ("digits", "vgg", "sgd", "unstructured 0.95", 0),
    ("mnist", "lenet", "adamw", "filter 0.75", 1),
}
"""Of RetrainBench, beside the networks that are put aside there: those made last."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        curve: What was watched.
        target: Percent.
        reached: Whether it comes within what was looked at.
        until: The last epoch that was looked at; None for `HORIZON` times what was watched.
        reference: The run at a larger LR.
        without: Problems that the calibration leaves out.
    """

    curve: LearningCurve
    target: float
    reached: bool
    until: float | None = None
    reference: LearningCurve | None = None
    without: tuple[str, ...] = ()


Law = Callable[[np.random.Generator, float, float], Callable[[Floats], Floats]]
"""From random numbers, where the law starts and where it ends (percent), to the law over t/tau."""


def _exponential(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    return lambda t: top - (top - start) * np.exp(-t)


def _power(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    power = rng.uniform(0.4, 1.5)
    return lambda t: top - (top - start) * (1 + t) ** -power


def _hill(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    power = rng.uniform(0.8, 2.5)
    return lambda t: start + (top - start) * t**power / (1 + t**power)


def _logarithm(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    # `top` is where it stands at t = 10: it has no ceiling but 100 %.
    pace = (top - start) / np.log(11)
    return lambda t: np.minimum(start + pace * np.log1p(t), 100.0)


def _stretched(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    power = rng.uniform(0.35, 0.8)
    return lambda t: top - (top - start) * np.exp(-(t**power))


def _two_scales(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    fast, slower = rng.uniform(0.5, 0.9), 10 ** rng.uniform(1, 2)
    return lambda t: top - (top - start) * (
        fast * np.exp(-t) + (1 - fast) * np.exp(-t / slower)
    )


def _jump(rng: np.random.Generator, start: float, top: float) -> Callable[[Floats], Floats]:
    rest = rng.uniform(0.3, 0.7) * (top - start)
    at = 10 ** rng.uniform(0.3, 2.0)
    return lambda t: (
        start
        + rest * -np.expm1(-t)
        + (top - start - rest) / (1 + (np.maximum(t, 1e-9) / at) ** -6.0)
    )


LAWS: dict[str, Law] = {
    "saturating exponential": _exponential,
    "power law": _power,
    "Hill": _hill,
    "logarithm": _logarithm,
    "stretched exponential": _stretched,
    "two time scales": _two_scales,
    "plateau, then a jump": _jump,
}


def drawn(*, aside: bool) -> dict[str, list[Question]]:
    """Return the questions of every law that is, or is not, put aside."""
    names = [name for name in LAWS if (name in ASIDE_LAWS) == aside]
    return {name: _of_law(name) for name in names}


def _of_law(name: str) -> list[Question]:
    """Return the questions of one law: noise, losses and lengths watched are drawn."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found: list[Question] = []
    for _ in range(DRAWN):
        top = rng.uniform(50, 99)
        start = rng.uniform(2, 0.7 * top)
        law = LAWS[name](rng, start, top)
        count = round(10 ** rng.uniform(0.9, 1.9))
        scales = 10 ** rng.uniform(-0.4, 1.0)  # watched, in units of the law's own time
        noise = float(rng.choice([0.0, 0.3, 1.0, 2.0]))
        time = np.arange(HORIZON * count + 1)
        clean = law(time * scales / count)
        values = np.clip(clean + noise * rng.normal(size=len(time)), 0, 100)
        told = str(rng.choice(["none", "tied", "spent"]))
        loss = None
        if told == "tied":  # the accuracy is a function of the loss, which levels off with it
            loss = 2.3 * (100.01 - clean[: count + 1]) / 100
        elif told == "spent":  # the training set is learned, whatever the test set says
            loss = 2.3 * (1 + time[: count + 1] * scales / count) ** -rng.uniform(0.5, 2.0)
        curve = LearningCurve(time[: count + 1], values[: count + 1], 1e-3, loss)
        now = float(running_maximum(values[1 : count + 1])[-1])
        best = float(running_maximum(values[1:])[-1])
        for share in SHARES:
            target = now + share * (100 - now)
            if now < target < 100:
                found.append(Question(curve, target, best >= target))
    return found


def read_bench(*, aside: bool) -> list[TrainingRun]:
    """Read the constant runs of RetrainBench; a problem is one of data and network."""
    found = []
    for curve in load():
        apart = curve.network in PUT_ASIDE_NETWORKS or curve.family in ASIDE_FAMILIES
        if curve.schedule != "constant" or curve.diverged or apart != aside:
            continue
        lost = loss_at_ends(curve.train_loss[1:].tolist(), curve.lr[1:].tolist())
        ends = np.array([np.nan if value is None else value for value in lost])
        loss = np.maximum(np.append(ends[0], ends), 1e-8)
        name, setting = f"retrainbench {curve.kind}", " ".join(map(str, curve.family))
        found.append(TrainingRun(name, setting, curve.peak_lr, curve.accuracy, loss, 0.0))
    return found


def read_lm(folder: Path) -> list[TrainingRun]:
    """Read the accuracies of language models at a constant LR, even records."""
    with (folder / "lm_runs.csv").open() as file:
        runs = {r["run"]: r for r in csv.DictReader(file) if r["schedule"] == "constant"}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    with (folder / "lm_curves.csv").open() as file:
        for row in csv.DictReader(file):
            if row["run"] in rows and row["val_acc"] and row["train_loss"]:
                numbers = (float(row[c]) for c in ("step", "val_acc", "train_loss"))
                step, accuracy, loss = numbers
                rows[row["run"]].append((step, 100 * accuracy, loss))
    found = []
    for name, held in rows.items():
        if len(held) < 20:
            continue
        step, accuracy, loss = np.array(held).T
        even = np.linspace(0, step[-1], 1 + len(held))[1:]
        accuracy, loss = np.interp(even, step, accuracy), np.interp(even, step, loss)
        lr = float(runs[name]["peak_lr"])
        first = np.append(accuracy[:1], accuracy), np.append(loss[:1], loss)
        found.append(TrainingRun(runs[name]["source"], runs[name]["source"], lr, *first, 0.0))
    return found


def _without(run: TrainingRun) -> tuple[str, ...]:
    """Return what the calibration leaves out when it is asked about a problem."""
    if run.problem.startswith("retrainbench "):
        return CALIBRATED_AS.get(run.problem.split()[1], ())
    return (run.problem,)


def recorded(runs: Sequence[TrainingRun]) -> dict[str, list[Question]]:
    """Return the questions of runs that were recorded, by problem."""
    found: dict[str, list[Question]] = {}
    for run in runs:
        if run.best[-1] < 2 * run.chance:
            continue
        for part in WATCHED:
            until = max(FEWEST, round(part * run.length))
            curve, now = run.curve(until), float(running_maximum(run.accuracy[1 : until + 1])[-1])
            for share in SHARES:
                target = now + share * (100 - now)
                if now < target < 100:
                    found.setdefault(run.problem, []).append(
                        Question(
                            curve,
                            target,
                            bool(run.best[-1] >= target),
                            float(run.length),
                            without=_without(run),
                        )
                    )
    return found


def pairs(runs: Sequence[TrainingRun], *, reference: bool) -> dict[str, list[Question]]:
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
                _without(case.small),
            )
        )
    return found
