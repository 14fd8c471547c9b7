"""Judge `reachable`: how often what is said to be reached with a probability is reached.

    python benchmarks/estimator_reachable.py [DEEPOBS] [--runs OUT] [--lm LM] [--aside]

DEEPOBS holds the `deepobs_*.csv` files, OUT what `calibration_runs.py` wrote, LM the `lm_*.csv`
files; without them their kinds are left out. No run has a reference unless `--reference` asks for
it. Which kinds are for development, and which are put aside (`--aside`), is fixed in
`estimator_reachable_cases.py`, with what is asked. Two probabilities are judged:

- of a drawn curve, `reachable`, against whether the target comes within 100 times what was watched;
- of a run that was recorded, the probability that the target comes by the run's end.

Columns: cases; share reached; mean claimed; Brier score; log score (nats, of probabilities kept
within .001 and .999); share of the reached that were called unreachable (below a half); then the
share reached by bins of the claimed probability, with the number of cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from estimator_protocol import read_deepobs, read_own
from estimator_reachable_cases import (
    ASIDE_OWN,
    Question,
    drawn,
    pairs,
    read_bench,
    read_lm,
    recorded,
)

from trainscope.convergence.calibration import Calibration, load
from trainscope.convergence.passages import Passages, passages
from trainscope.convergence.stage import first_stage

BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0 + 1e-9)
LEAST = 1e-3
Claimed = np.ndarray


def ahead(question: Question, calibration: Calibration) -> Passages:
    """Return what the estimator says of a curve."""
    stage = first_stage(question.curve)
    its = None if question.reference is None else first_stage(question.reference)
    assert stage is not None
    return passages(stage, its, calibration)


def claims(asked: Sequence[Question]) -> Claimed:
    """Return the probability that each target comes within what was looked at."""
    said, last = [], None
    for question in asked:
        # Targets of one curve come one after the other.
        if last is None or last[0] is not question.curve or last[1] is not question.reference:
            told = ahead(question, load(*question.without))
            last = (question.curve, question.reference)
        if question.until is None:
            said.append(told.reachable(question.target))
        else:
            said.append(1 - told.not_within(question.until, question.target))
    return np.array(said)


def row(name: str, said: Claimed, reached: Claimed, weight: Claimed | None = None) -> str:
    """Return a line of the table."""
    w = np.ones(len(said)) if weight is None else weight
    kept = np.clip(said, LEAST, 1 - LEAST)
    mean = np.average(reached, weights=w)
    brier = np.average((said - reached) ** 2, weights=w)
    log = -np.average(np.log(np.where(reached, kept, 1 - kept)), weights=w)
    never = np.average(said < 0.5, weights=w * reached) if reached.any() else 0.0
    cells = [f"{len(said)}", f"{mean:.2f}", f"{np.average(said, weights=w):.2f}"]
    cells += [f"{brier:.3f}", f"{log:.3f}", f"{never:.3f}"]
    for low, high in zip(BINS, BINS[1:], strict=False):
        part = (said >= low) & (said < high)
        share = np.average(reached[part], weights=w[part]) if part.any() else np.nan
        cells.append(f"{share:.2f} ({part.sum()})" if part.any() else "")
    return f"| {name} | {' | '.join(cells)} |"


def table(title: str, kinds: dict[str, list[Question]]) -> None:
    """Print one table, a kind a line, and all, every kind with the same weight."""
    names = [f"{low:.2g} to {min(high, 1):.2g}" for low, high in zip(BINS, BINS[1:], strict=False)]
    print(f"\n**{title}**\n")
    print(
        "| kind | cases | reached | claimed | Brier | log | called never | "
        f"{' | '.join(names)} |\n|{'---|' * (7 + len(names))}"
    )
    said = {name: claims(asked) for name, asked in kinds.items()}
    truth = {name: np.array([q.reached for q in asked]) for name, asked in kinds.items()}
    for name in kinds:
        print(row(name, said[name], truth[name]))
    if len(kinds) > 1:
        weight = np.concatenate([np.full(len(k), 1 / len(k)) for k in kinds.values()])
        all_ = np.concatenate(list(said.values())), np.concatenate(list(truth.values()))
        print(row("all, each kind the same", *all_, weight))


def sources(args: argparse.Namespace) -> dict[str, dict[str, list[Question]]]:
    """Return the tables that are asked for."""
    runs = read_bench(aside=args.aside)
    if args.runs:
        runs += [r for r in read_own(args.runs) if (r.problem in ASIDE_OWN) == args.aside]
    if args.deepobs and not args.aside:
        runs += read_deepobs(args.deepobs)
    if args.lm and args.aside:
        runs += read_lm(args.lm)
    found = {} if args.reference else {"Drawn curves": drawn(aside=args.aside)}
    if not args.reference:
        found["Recorded runs, levels between the present and 100 %"] = recorded(runs)
    found["Recorded runs, what a larger LR had reached"] = pairs(runs, reference=args.reference)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deepobs", type=Path, nargs="?")
    parser.add_argument("--runs", type=Path, help="of calibration_runs.py")
    parser.add_argument("--lm", type=Path, help="folder of the lm_*.csv files")
    parser.add_argument("--aside", action="store_true", help="judge what is put aside")
    parser.add_argument("--reference", action="store_true", help="with the larger LR's run")
    args = parser.parse_args()
    for title, kinds in sources(args).items():
        table(title, kinds)


if __name__ == "__main__":
    main()
