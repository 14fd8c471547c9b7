"""Pruned digits networks retrained by trainscope itself, and what the estimator said beforehand.

    python benchmarks/estimator_retrainings.py OUT [--ratio 0.95]

The digits network is pretrained, pruned, and retrained at LR 1e-2 (the reference), 1e-3 and 5e-4,
each with first stages of several lengths and then two decays, so that the accuracy after the decays
is known for every length. For each small LR and each first stage that ends below the target (the
reference's final accuracy, less half a point of luck), the estimate is made from that stage alone.
Runs that are in OUT are not made again. One core, about 5 minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from trainscope.convergence import LearningCurve, estimate_extra_epochs
from trainscope.records import Run

STAGES = (8, 14, 24, 40, 70)
TAIL = 8
LUCK = 0.5


def trainscope(*arguments: str) -> None:
    """Run one command."""
    command = [sys.executable, "-m", "trainscope.cli.main", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def plan(lr: float, first: int) -> str:
    """Return the schedule with a first stage of some length."""
    return f"0:{lr:g},{first}:{lr / 10:g},{first + 5}:{lr / 100:g}"


def retrain(out: Path, lr: float, first: int, ratio: float) -> Run:
    """Return one retraining, made where it is missing."""
    folder = out / f"lr{lr:g}-first{first}"
    if not (folder / "run.json").exists():
        trainscope(
            "retrain",
            str(out / "base/checkpoint.pt"),
            "--ratio",
            str(ratio),
            "--schedule",
            plan(lr, first),
            "--epochs",
            str(first + TAIL),
            "--no-norms",
            "--output",
            str(folder),
        )
    return Run.load(folder)


def final(run: Run) -> float:
    """Return the mean of the last three test accuracies, percent."""
    return float(np.mean([r.test_accuracy for r in run.epochs[-3:] if r.test_accuracy is not None]))


def main() -> None:
    """Print what was estimated beside what was true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ratio", type=float, default=0.95)
    args = parser.parse_args()
    if not (args.out / "base/checkpoint.pt").exists():
        trainscope(
            "train",
            "--arch",
            "digits_resnet",
            "--data",
            "digits",
            "--recipe",
            "F20,1e-2",
            "--no-norms",
            "--output",
            str(args.out / "base"),
        )
    reference = retrain(args.out, 1e-2, 40, args.ratio)
    target = final(reference) - LUCK
    print(f"target {target:.2f} % after the decays")
    for lr in (1e-3, 5e-4):
        runs = [retrain(args.out, lr, first, args.ratio) for first in STAGES]
        finals = np.array([final(run) for run in runs])
        rising = np.maximum.accumulate(finals)
        print(f"LR {lr:g}: after first stages of {STAGES} epochs {finals.round(2)} %")
        whole = np.interp(target, rising, np.log(STAGES), right=np.inf)
        for run, first, end in zip(runs, STAGES, rising, strict=True):
            if end >= target:
                continue
            full = LearningCurve.from_run(run)
            stage = full.epochs <= first
            loss = None if full.loss is None else full.loss[stage]
            small = LearningCurve(full.epochs[stage], full.accuracy[stage], lr, loss)
            estimate = estimate_extra_epochs(
                small,
                target,
                LearningCurve.from_run(reference),
                schedule=plan(lr, first),
                total_epochs=first + TAIL,
            )
            truth = float(np.exp(whole)) - first
            extra = estimate.extra_epochs
            true = f"{truth:.0f}" if np.isfinite(truth) else f"more than {STAGES[-1] - first}"
            held = extra.low <= truth <= extra.high or (
                not np.isfinite(truth) and extra.high > STAGES[-1] - first
            )
            print(
                f"  watched {first:2d}: extra {extra}, true {true}: {'held' if held else 'missed'}"
            )


if __name__ == "__main__":
    main()
