"""Judge `reachable`: how often what is said to be reached with a probability is reached.

    python benchmarks/estimator_reachable.py [DEEPOBS] [--runs OUT] [--lm LM] [--aside]

DEEPOBS holds the `deepobs_*.csv` files, OUT what `calibration_runs.py` wrote, LM the `lm_*.csv`
files; without them their kinds are left out. No run has a reference unless `--reference` asks for
it. Which kinds are for development, and which are put aside (`--aside`), is fixed in
`estimator_reachable_cases.py` and `estimator_reachable_laws.py`, with what is asked. A problem, or
a law, is judged without having been calibrated on. Two probabilities are judged:

- of a drawn curve, `reachable`, against whether the target comes within 100 times what was watched;
- of a run that was recorded, the probability that the target comes by the run's end.

Columns: cases; share reached; mean claimed; Brier score; log score (nats, of probabilities kept
within .001 and .999); share of the reached that were called unreachable; then the share reached by
bins of the claimed probability, with the number of cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from estimator_protocol import read_deepobs
from estimator_reachable_cases import losses, pairs, read_lm, recorded, runs_of
from estimator_reachable_laws import SCORE, Question, drawn
from numpy.typing import NDArray

from trainscope.convergence.calibration import Calibration, load
from trainscope.convergence.estimate import FEW_REACH
from trainscope.convergence.passages import Passages, passages
from trainscope.convergence.scale import Scale, shared_scale
from trainscope.convergence.stage import first_stage

Floats = NDArray[np.float64]
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0 + 1e-9)
LEAST = 1e-3


def ahead(question: Question, calibration: Calibration) -> tuple[Passages, Scale]:
    """Return what the estimator says of a curve, and the scale that it says it on."""
    both = [curve for curve in (question.curve, question.reference) if curve is not None]
    scale = shared_scale(both)
    stages = [first_stage(curve.on(scale)) for curve in both]
    assert stages[0] is not None
    return passages(stages[0], stages[1] if len(stages) > 1 else None, calibration), scale


def claims(asked: Sequence[Question]) -> tuple[Floats, Floats]:
    """Return the probability that each target comes within what was looked at, and ever."""
    said, last = [], None
    for question in asked:
        # Targets of one curve come one after the other.
        if last is None or last[0] is not question.curve or last[1] is not question.reference:
            told, scale = ahead(question, load(*question.without))
            last = (question.curve, question.reference)
        level = scale.quality(question.target)
        ever = told.reachable(level)
        said.append((ever if question.until is None else told.within(question.until, level), ever))
    by_then, ever_ = np.array(said).T
    return by_then, ever_


def row(name: str, said: Floats, ever: Floats, reached: Floats, weight: Floats) -> str:
    """Return a line of the table."""
    kept = np.clip(said, LEAST, 1 - LEAST)
    brier = np.average((said - reached) ** 2, weights=weight)
    log = -np.average(np.log(np.where(reached, kept, 1 - kept)), weights=weight)
    never = np.average(ever < FEW_REACH, weights=weight * reached) if reached.any() else 0.0
    cells = [f"{len(said)}", f"{np.average(reached, weights=weight):.2f}"]
    cells += [f"{np.average(said, weights=weight):.2f}", f"{brier:.3f}", f"{log:.3f}"]
    cells.append(f"{never:.3f}")
    for low, high in pairwise(BINS):
        part = (said >= low) & (said < high)
        share = np.average(reached[part], weights=weight[part]) if part.any() else np.nan
        cells.append(f"{share:.2f} ({part.sum()})" if part.any() else "")
    return f"| {name} | {' | '.join(cells)} |"


def table(title: str, kinds: dict[str, list[Question]], *, every: bool) -> None:
    """Print one table: all, every kind with the same weight, and, if asked for, a kind a line."""
    names = [f"{low:.2g} to {min(high, 1):.2g}" for low, high in pairwise(BINS)]
    print(f"\n**{title}**\n")
    print(
        "| kind | cases | reached | claimed | Brier | log | called never | "
        f"{' | '.join(names)} |\n|{'---|' * (7 + len(names))}"
    )
    parts = []
    for name, asked in kinds.items():
        said, ever = claims(asked)
        reached = np.array([float(q.reached) for q in asked])
        parts.append((said, ever, reached, np.full(len(asked), 1 / len(asked))))
        if every:
            print(row(name, *parts[-1]))
    all_ = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    print(row("all, each kind the same", *all_))


def sources(args: argparse.Namespace) -> dict[str, dict[str, list[Question]]]:
    """Return the tables that are asked for."""
    runs = runs_of(args.runs, aside=args.aside)
    if args.deepobs and not args.aside:
        runs += read_deepobs(args.deepobs)
    if args.lm and args.aside:
        runs += read_lm(args.lm)
    if args.reference:
        return {"Recorded runs, what a larger LR had reached": pairs(runs, reference=True)}
    of_losses = losses(aside=args.aside)
    return {
        "Drawn curves": drawn(aside=args.aside),
        "Recorded runs, levels between the present and 100 %": recorded(runs),
        "Recorded runs, what a larger LR had reached": pairs(runs),
        "Drawn curves of a metric without an end": drawn(aside=args.aside, metric=SCORE),
        "Test losses": {k: v for k, v in of_losses.items() if ", pairs" not in k},
        "Test losses, what a larger LR had reached": {
            k: v for k, v in of_losses.items() if ", pairs" in k
        },
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deepobs", type=Path, nargs="?")
    parser.add_argument("--runs", type=Path, help="of calibration_runs.py")
    parser.add_argument("--lm", type=Path, help="folder of the lm_*.csv files")
    parser.add_argument("--aside", action="store_true", help="judge what is put aside")
    parser.add_argument("--reference", action="store_true", help="with the larger LR's run")
    parser.add_argument("--all", action="store_true", help="of all kinds together alone")
    args = parser.parse_args()
    for title, kinds in sources(args).items():
        table(title, kinds, every=not args.all)


if __name__ == "__main__":
    main()
