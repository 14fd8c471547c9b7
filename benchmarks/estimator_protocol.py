"""The LR-pair protocol: which cases the convergence estimator is judged on, and what is true.

A case is a run at a small constant LR, watched for a share of its length, and a run of the same
problem and optimizer at an LR 2.5, 4 or 10 times as large. The target is what the large run had
reached (running maximum of the centred 5-epoch mean) at a share of its length. The truth is the
first passage of the small run's running maximum at the target, interpolated; infinite where it is
not reached within the run's length.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence import LearningCurve
from trainscope.convergence.bench import BenchCurve, load
from trainscope.convergence.bench.questions import CLEAR
from trainscope.convergence.bench.splits import PUT_ASIDE_NETWORKS
from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.passage import centred_mean, first_passage, noise, running_maximum

PAIRS = ((2.5, 2, (0.3,)), (4.0, 3, (0.2, 0.5)), (10.0, 5, (0.1, 0.2)))
"""LR ratio, its steps on the grid of 0.2 decades, and where on the large run the target is."""
WATCHED = (0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class TrainingRun:
    """One run at a constant LR. Arrays are [N+1], epoch 0 first; `chance` is in percent."""

    problem: str
    setting: str
    lr: float
    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    chance: float

    @property
    def length(self) -> int:
        """Return the number of epochs."""
        return len(self.accuracy) - 1

    def curve(self, until: int | None = None, *, loss: bool = True) -> LearningCurve:
        """Return the learning curve up to an epoch."""
        n = self.length if until is None else until
        return LearningCurve(
            np.arange(n + 1.0),
            self.accuracy[: n + 1],
            self.lr,
            self.loss[: n + 1] if loss else None,
        )

    @property
    def best(self) -> NDArray[np.float64]:
        """Return the running maximum of the centred mean, from epoch 1, [N]."""
        return running_maximum(self.accuracy[1:])


@dataclass(frozen=True)
class Case:
    """One question, and its answer.

    Attributes:
        small: The run that is watched.
        large: The reference.
        ratio: Of the LRs.
        share: Of the large run's length at which it had the target.
        watched: Share of the small run's length.
        epochs: Epochs watched.
        target: Percent.
        truth: Epoch of the first passage; inf where it lies beyond the run.
    """

    small: TrainingRun
    large: TrainingRun
    ratio: float
    share: float
    watched: float
    epochs: int
    target: float
    truth: float


def read_deepobs(folder: Path) -> list[TrainingRun]:
    """Read the public runs of seed 42 that did not diverge."""
    with (folder / "deepobs_runs.csv").open() as file:
        runs = {row["curve"]: row for row in csv.DictReader(file) if row["seed"] == "42"}
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    with (folder / "deepobs_curves.csv").open() as file:
        for row in csv.DictReader(file):
            if row["curve"] in curves:
                numbers = (float(row[c] or "nan") for c in ("test_acc", "train_loss"))
                accuracy, loss = numbers
                curves[row["curve"]].append((100 * accuracy, loss))
    found = []
    for name, row in runs.items():
        table = np.array(curves[name])
        if np.isfinite(table).all() and (table[:, 1] > 0).all():
            setting = f"{row['problem']}-{row['optimizer']}"
            run = TrainingRun(
                row["problem"], setting, float(row["lr"]), table[:, 0], table[:, 1], 10.0
            )
            found.append(run)
    return found


def read_own(folder: Path) -> list[TrainingRun]:
    """Read what `calibration_runs.py` wrote. A data set is a problem."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as raw:
            z = {name: raw[name].astype(np.float64) for name in raw.files}
        for lr, accuracy, loss in zip(z["lr"], z["accuracy"], z["loss"], strict=True):
            if np.isfinite(accuracy).all() and np.isfinite(loss).all() and (loss > 0).all():
                problem = path.stem.split("-")[0]
                found.append(
                    TrainingRun(problem, path.stem, float(lr), accuracy, loss, float(z["chance"]))
                )
    return found


def is_open(curve: BenchCurve) -> bool:
    """Return whether a curve of RetrainBench may be looked at: it is not put aside."""
    return curve.network not in PUT_ASIDE_NETWORKS


def read_bench(
    path: Path | None = None, keep: Callable[[BenchCurve], bool] = is_open
) -> list[TrainingRun]:
    """Read the constant runs of RetrainBench; a problem is one of data and network."""
    found = []
    for curve in load(path):
        if curve.schedule != "constant" or curve.diverged or not keep(curve):
            continue
        lost = loss_at_ends(curve.train_loss[1:].tolist(), curve.lr[1:].tolist())
        ends = np.array([np.nan if value is None else value for value in lost])
        name = f"retrainbench {curve.kind}"
        setting = " ".join(map(str, curve.family))
        loss = np.maximum(np.append(ends[0], ends), 1e-8)
        found.append(TrainingRun(name, setting, curve.peak_lr, curve.accuracy, loss, 0.0))
    return found


def is_clear(case: Case) -> bool:
    """Return whether a target lies above the noise of the untrained network's accuracy."""
    return case.target > case.small.accuracy[0] + CLEAR * noise(case.small.accuracy[1:])


def cases(runs: Sequence[TrainingRun], watched: Sequence[float] = WATCHED) -> Iterator[Case]:
    """Yield every case of every setting."""
    settings: dict[str, list[TrainingRun]] = {}
    for run in runs:
        if run.best[-1] >= 2 * run.chance:
            settings.setdefault(run.setting, []).append(run)
    for group in settings.values():
        for small in group:
            for large in group:
                yield from _pair(small, large, watched)


def _pair(small: TrainingRun, large: TrainingRun, watched: Sequence[float]) -> Iterator[Case]:
    """Yield the cases of one pair of runs."""
    steps = 5 * np.log10(large.lr / small.lr)
    ratio, _, shares = next((p for p in PAIRS if abs(steps - p[1]) < 0.1), (0.0, 0, ()))
    ends = centred_mean(small.accuracy)[-1], centred_mean(large.accuracy)[-1]
    if not shares or ends[1] < ends[0] - 15:
        return
    time = np.arange(1.0, small.length + 1)
    for share in shares:
        at = share * large.length
        target = float(np.interp(at, np.arange(1.0, large.length + 1), large.best))
        truth = float(first_passage(time, small.best, np.array([target]))[0])
        for part in watched:
            epochs = max(6, round(part * small.length))
            if truth > epochs:
                yield Case(small, large, ratio, share, part, epochs, target, truth)
