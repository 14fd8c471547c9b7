"""Judge `extra_epochs` where the truth after the decays is known, and on a published table.

    python benchmarks/estimator_decays.py OUT

OUT is what `calibration_runs.py` wrote. Every pruned network there was retrained at several LRs,
and at several epochs of each run the LR was decayed, so that the accuracy after the decays is known
as a function of the length of the first stage. A case: a short first stage is planned and watched;
the reference is a run at an LR 2.5, 4 or 10 times as large, with its decays or without; the target
is the accuracy after them. The truth is the length of the first stage at which the small
run's accuracy after the decays (made rising, interpolated in log epochs) reaches the target.

Then Table 5 of Wang et al. (2023): from the accuracy of each case's first row alone and the large
run's final accuracy, does the interval hold the true number of extra epochs? There is no curve, so
that the estimate rests on the ratio of the LRs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainscope.convergence import Estimate, LearningCurve, estimate_extra_epochs
from trainscope.convergence.calibration import load

RATIOS = (2.5, 4.0, 10.0)


@dataclass(frozen=True)
class Answer:
    """One case and its estimate; `truth` is in epochs to add, `last` the longest that was tried."""

    name: str
    truth: float
    last: float
    estimate: Estimate


def decays(path: Path, *, with_decays: bool) -> list[Answer]:
    """Return the cases of one pruned network."""
    with np.load(path) as raw:
        z = {name: raw[name].astype(np.float64) for name in raw.files}
    stages, shares = z["stages"], z["decay_lr"]
    total = len(shares)
    answers = []
    for i, lr in enumerate(z["lr"]):
        for ratio in RATIOS:
            j = int(np.argmin(np.abs(z["lr"] / lr - ratio)))
            if abs(z["lr"][j] / lr / ratio - 1) > 0.05:
                continue
            for first in range(len(stages) // 2):
                for its in range(1, len(stages)):
                    target = float(z["final"][j, its])
                    rising = np.maximum.accumulate(z["final"][i])
                    if rising[first] >= target or not np.isfinite(z["final"][j]).all():
                        continue
                    if not np.isfinite(z["accuracy"][[i, j]]).all():
                        continue
                    length = np.interp(target, rising[first:], np.log(stages[first:]), right=np.inf)
                    n = int(stages[first])
                    small = LearningCurve(
                        np.arange(n + 1.0), z["accuracy"][i, : n + 1], lr, z["loss"][i, : n + 1]
                    )
                    m = int(stages[its])
                    tail = z["decay_accuracy"][j, its] if with_decays else z["final"][j, :0]
                    large = LearningCurve(
                        np.arange(m + 1.0 + len(tail)),
                        np.append(z["accuracy"][j, : m + 1], tail),
                        np.append(np.full(m + 1, z["lr"][j]), z["lr"][j] * shares[: len(tail)]),
                        np.append(z["loss"][j, : m + 1], np.full(len(tail), z["loss"][j, m])),
                    )
                    drops = np.flatnonzero(np.diff(np.append(1.0, shares)))
                    parts = [f"0:{lr:.9g}", *(f"{n + e}:{lr * shares[e]:.9g}" for e in drops)]
                    estimate = estimate_extra_epochs(
                        small,
                        target,
                        large,
                        schedule=",".join(parts),
                        total_epochs=n + total,
                        calibration=load(path.stem.split("-")[0]),
                    )
                    truth = float(np.exp(length)) - n
                    answers.append(Answer(path.stem, truth, float(stages[-1]) - n, estimate))
    return answers


def show(title: str, answers: list[Answer]) -> None:
    """Print error and coverage: of the length of the first stage, so that 0 is no trouble."""
    if not any(np.isfinite(a.truth) for a in answers):
        print(f"{title:34s}     0: no runs whose accuracy after decays is known")
        return
    truth = np.array([a.truth for a in answers])
    median = np.array([a.estimate.extra_epochs.median for a in answers])
    low = np.array([a.estimate.extra_epochs.low for a in answers])
    high = np.array([a.estimate.extra_epochs.high for a in answers])
    last = np.array([a.last for a in answers])
    known = np.isfinite(truth)
    ten = 10.0  # epochs, so that small numbers do not make large ratios
    error = np.abs(np.log2((np.minimum(median, 1e9) + ten) / (np.where(known, truth, 0) + ten)))
    covered = np.where(known, (low <= truth + 0.5) & (truth <= high + 0.5), high >= last)
    within = (median <= last) == known
    width = np.log2((np.minimum(high, 1e9) + ten) / (low + ten))
    print(
        f"{title:34s} {len(answers):5d} {known.mean():6.2f} {np.median(error[known]):7.3f} "
        f"{np.quantile(error[known], 0.9):6.2f} {within.mean():6.2f} {covered[known].mean():6.2f} "
        f"{covered.mean():6.2f} {np.median(width):6.2f}"
    )


def table_5() -> None:
    """Print what the intervals say of the published table."""
    cases = (
        ("P30F90 1e-2", 1e-2, 1e-1, 30, 90, 77.64, 79.57, (0, 30, 60), (77.64, 79.12, 79.59)),
        (
            "P60F60 1e-3",
            1e-3,
            1e-2,
            30,
            60,
            70.53,
            77.81,
            (0, 60, 120, 180),
            (70.53, 75.71, 77.17, 77.33),
        ),
        (
            "P90F30 1e-4",
            1e-4,
            1e-2,
            15,
            30,
            29.89,
            75.20,
            (0, 60, 270, 1485),
            (29.89, 60.69, 70.78, 78.18),
        ),
    )
    print("\nTable 5 of Wang et al. (2023): extra epochs of the first stage")
    for name, lr, large_lr, first, total, accuracy, target, extra, tops in cases:
        log_length = np.interp(target, tops, np.log(first + np.array(extra)), right=np.inf)
        truth = float(np.exp(log_length)) - first
        # Only the accuracies after the decays were published.
        small, large = (
            LearningCurve(
                range(1, total + 1),
                [np.nan] * (total - 1) + [value],
                [rate] * first + [rate / 10] * (total - first),
            )
            for rate, value in ((lr, accuracy), (large_lr, target))
        )
        schedule = f"0:{lr},{first}:{lr / 10}"
        e = estimate_extra_epochs(
            small, target, large, schedule=schedule, total_epochs=total
        ).extra_epochs
        true = f"{truth:.0f}" if np.isfinite(truth) else f"more than {extra[-1]}"
        holds = e.low <= truth <= e.high if np.isfinite(truth) else e.high > extra[-1]
        print(f"  {name}: {e}, true {true}: {'held' if holds else 'missed'}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="of calibration_runs.py")
    args = parser.parse_args()
    print(f"{'':34s} cases within median    p90  right  known    all  width")
    for with_decays in (True, False):
        print("reference with its decays" if with_decays else "reference without decays")
        together = []
        for path in sorted(args.runs.glob("*.npz")):
            with np.load(path) as raw:
                if "stages" not in raw.files:
                    continue
            answers = decays(path, with_decays=with_decays)
            show(f"  {path.stem}", answers)
            together += answers
        show("  together", together)
    table_5()


if __name__ == "__main__":
    main()
