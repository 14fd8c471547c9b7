"""Pruned networks retrained by trainscope itself, and what the estimator said beforehand.

    python benchmarks/estimator_retrainings.py OUT [--mnist ROOT] [--ratio 0.95] [--seeds 3]

The digits network, and LeNet-5 on 6,000 training and 2,000 test images of MNIST, are pretrained,
pruned, and retrained at LR 1e-2 (the reference) and two smaller ones, each with first stages of
several lengths and then two decays, so that the accuracy after the decays is known for every
length. For each small LR and each first stage that ends below the target (the reference's final
accuracy, less half a point of luck), the estimate is made from that stage alone, of each seed; what
is true is the mean of the seeds, as one run's accuracy on so few images is luck to half a point.
Runs that are in OUT are not made again. One core, about 15 minutes each.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainscope.convergence import Estimate, LearningCurve, estimate_extra_epochs
from trainscope.records import Run

LARGE = 1e-2
STAGES = (8, 14, 24, 40, 70)
TAIL = 8
LUCK = 0.5


@dataclass(frozen=True)
class Task:
    """What is pretrained and pruned; the small LRs; and the folder of its runs."""

    architecture: str
    data: str
    recipe: str
    small: tuple[float, ...]
    out: Path


def trainscope(*arguments: str) -> None:
    """Run one command."""
    command = [sys.executable, "-m", "trainscope", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def few_of_mnist(root: Path, out: Path) -> str:
    """Write the first images of MNIST as a data set of their own; return its name."""
    from torchvision.datasets import MNIST

    raw = out / "MNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    for train, name, count in ((True, "train", 6000), (False, "t10k", 2000)):
        whole = MNIST(root, train=train)
        images, labels = whole.data[:count].numpy(), whole.targets[:count].numpy()
        head = struct.pack(">IIII", 0x803, *images.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">II", 0x801, count)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype("uint8").tobytes())
    return f"mnist:{out}"


def plan(lr: float, first: int) -> str:
    """Return the schedule with a first stage of some length."""
    return f"0:{lr:g},{first}:{lr / 10:g},{first + 5}:{lr / 100:g}"


def retrain(task: Task, lr: float, first: int, ratio: float, seed: int) -> Run:
    """Return one retraining, made where it is missing."""
    folder = task.out / f"lr{lr:g}-first{first}-seed{seed}"
    if not (folder / "run.json").exists():
        base = str(task.out / "base/checkpoint.pt")
        length = ("--schedule", plan(lr, first), "--epochs", str(first + TAIL))
        given = ("--data", task.data, "--ratio", str(ratio), "--seed", str(seed), *length)
        trainscope("retrain", base, *given, "--no-norms", "--output", str(folder))
    return Run.load(folder)


def final(run: Run) -> float:
    """Return the mean of the last three test accuracies, percent."""
    return float(np.mean([r.test_accuracy for r in run.epochs[-3:] if r.test_accuracy is not None]))


def judge(task: Task, ratio: float, seeds: int) -> tuple[int, int]:
    """Print what was estimated beside what was true; return how many held, and of how many."""
    if not (task.out / "base/checkpoint.pt").exists():
        network = ("--arch", task.architecture, "--data", task.data, "--recipe", task.recipe)
        trainscope("train", *network, "--no-norms", "--output", str(task.out / "base"))
    references = [retrain(task, LARGE, 40, ratio, seed) for seed in range(seeds)]
    target = float(np.mean([final(run) for run in references])) - LUCK
    print(f"{task.architecture}, {ratio:.0%} pruned: target {target:.2f} % after the decays")
    held = cases = 0
    for lr in task.small:
        runs = [[retrain(task, lr, n, ratio, seed) for seed in range(seeds)] for n in STAGES]
        finals = np.array([np.mean([final(run) for run in group]) for group in runs])
        rising = np.maximum.accumulate(finals)
        print(f"  LR {lr:g}: after first stages of {STAGES} epochs {finals.round(2)} %", flush=True)
        whole = float(np.exp(np.interp(target, rising, np.log(STAGES), right=np.inf)))
        for group, first, end in zip(runs, STAGES, rising, strict=True):
            if end >= target:
                continue
            truth, last = whole - first, STAGES[-1] - first
            known = bool(np.isfinite(truth))
            said, right = [], 0
            for run, reference in zip(group, references, strict=True):
                extra = estimate(run, first, target, reference).extra_epochs
                right += extra.low <= truth <= extra.high if known else extra.high > last
                said.append(str(extra))
            true = f"{truth:.0f}" if known else f"more than {last}"
            print(f"    watched {first:2d}: true {true}, {right} held: {', '.join(said)}")
            held, cases = held + right, cases + len(group)
    return held, cases


def estimate(run: Run, first: int, target: float, reference: Run) -> Estimate:
    """Return the estimate made from a run's first stage alone."""
    full = LearningCurve.from_run(run)
    stage = full.epochs <= first
    loss = None if full.loss is None else full.loss[stage]
    lr = float(full.lr[0])
    return estimate_extra_epochs(
        LearningCurve(full.epochs[stage], full.accuracy[stage], lr, loss),
        target,
        LearningCurve.from_run(reference),
        schedule=plan(lr, first),
        total_epochs=first + TAIL,
    )


def main() -> None:
    """Judge every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mnist", type=Path, help="root of torchvision's MNIST; else skipped")
    parser.add_argument("--ratio", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    tasks = [Task("digits_resnet", "digits", "F20,1e-2", (1e-3, 5e-4), args.out / "digits")]
    if args.mnist:
        data = few_of_mnist(args.mnist, args.out / "few")
        tasks.append(Task("lenet5", data, "F10,1e-2", (2.5e-3, 1e-3), args.out / "mnist"))
    counts = [judge(task, args.ratio, args.seeds) for task in tasks]
    held, cases = map(sum, zip(*counts, strict=True))
    print(f"the interval held the true number in {held} of {cases}")


if __name__ == "__main__":
    main()
