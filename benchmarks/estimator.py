"""Judge the convergence estimator by the LR-pair protocol, beside what people do without it.

    python benchmarks/estimator.py DIR [--runs OUT] [--no-loss]

DIR holds `deepobs_runs.csv` and `deepobs_curves.csv`; OUT is what `calibration_runs.py` wrote, for
a second table of runs that are unlike those. The intervals of a problem are
calibrated without it. See `estimator_protocol.py` for what a case is. Columns: median and 90th
percentile of |log2(predicted / true)| over cases whose truth lies within the run's length; share of
cases told rightly whether it does; share told "never" wrongly; coverage of the 80 % interval over
cases whose truth is known, and over all (one that is not reached counts as covered if the interval
goes on past the run's end); median log2 width.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from estimator_baselines import least_squares_power_law, log_line, lr_ratio, time_factor
from estimator_protocol import WATCHED, Case, cases, read_deepobs, read_own

from trainscope.convergence import Interval, estimate_extra_epochs
from trainscope.convergence.calibration import load

Method = Callable[[Case], Interval]


@dataclass(frozen=True)
class Row:
    """A method's figures at one share watched."""

    median: float
    tail: float
    within: float
    never: float
    known: float
    covered: float
    width: float

    def __str__(self) -> str:
        """Return the figures, without the interval's where there is none."""
        out = f"{self.median:6.3f} {self.tail:6.2f} {self.within:5.2f} {self.never:5.2f}"
        if np.isnan(self.width):
            return out + "    -     -     - "
        return out + f" {self.known:5.2f} {self.covered:5.2f} {self.width:5.2f}"


def point(method: Callable[[Case], float]) -> Method:
    """Return a method that gives no interval."""
    return lambda case: Interval(method(case), float("nan"), float("nan"))


def ours(*, reference: bool, loss: bool, level: float = 0.8) -> Method:
    """Return the estimator, calibrated without the case's problem."""

    def method(case: Case) -> Interval:
        estimate = estimate_extra_epochs(
            case.small.curve(case.epochs, loss=loss),
            case.target,
            case.large.curve(loss=loss) if reference else None,
            level=level,
            calibration=load(case.small.problem),
        )
        return estimate.first_passage

    return method


def score(questions: Sequence[Case], answers: Sequence[Interval]) -> Row:
    """Return the figures of some cases."""
    truth = np.array([case.truth for case in questions])
    length = np.array([case.small.length for case in questions], dtype=float)
    predicted, low, high = np.array([(a.median, a.low, a.high) for a in answers]).T
    reached = np.isfinite(truth)
    error = np.abs(np.log2(np.minimum(predicted[reached], 1e12) / truth[reached]))
    covered = np.where(reached, (low <= truth) & (truth <= high), high > length)
    width = np.log2(np.minimum(high, 1e12) / np.clip(low, 1e-9, 1e12))
    return Row(
        median=float(np.median(error)),
        tail=float(np.quantile(error, 0.9)),
        within=float(np.mean((predicted <= length) == reached)),
        never=float(np.mean(np.isinf(predicted[reached]))),
        known=float(covered[reached].mean()),
        covered=float(covered.mean()),
        width=float(np.median(width[reached])) if not np.isnan(low).any() else float("nan"),
    )


def table(title: str, questions: Sequence[Case], methods: dict[str, Method]) -> None:
    """Print one table."""
    print(f"\n{title}: {len(questions)} cases")
    print(f"{'':34s}{'watched':>8s} median    p90 within never known   all width")
    for name, method in methods.items():
        start = time.perf_counter()
        answers = [method(case) for case in questions]
        cost = 1e3 * (time.perf_counter() - start) / max(len(questions), 1)
        for share in WATCHED:
            part = [i for i, case in enumerate(questions) if case.watched == share]
            row = score([questions[i] for i in part], [answers[i] for i in part])
            label = f"{name} ({cost:.1f} ms)" if share == WATCHED[0] else ""
            print(f"{label:34s}{100 * share:6.0f} % {row}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the deepobs_*.csv files")
    parser.add_argument("--runs", type=Path, help="of calibration_runs.py")
    parser.add_argument("--no-loss", action="store_true", help="watch the accuracy alone")
    args = parser.parse_args()
    loss = not args.no_loss
    methods: dict[str, Method] = {
        "LR ratio": point(lr_ratio),
        "fitted time factor": point(time_factor),
        "trainscope, with the large run": ours(reference=True, loss=loss),
        "line in log epoch": point(log_line),
        "power law, least squares": point(least_squares_power_law),
        "trainscope, alone": ours(reference=False, loss=loss),
    }
    public = list(cases(read_deepobs(args.folder)))
    table("Public runs", public, methods)
    for problem in sorted({case.small.problem for case in public}):
        part = [case for case in public if case.small.problem == problem]
        table(problem, part, {k: v for k, v in methods.items() if k.startswith("trainscope")})
    if args.runs:
        table("Our own runs", list(cases(read_own(args.runs))), methods)


if __name__ == "__main__":
    main()
