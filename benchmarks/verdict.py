"""How often the cross-validated verdict is right: synthetic accuracies whose truth is known.

    python benchmarks/verdict.py [--trials 4000] [--seed 0]

Two methods A and B under two retraining setups a and b; a cell's accuracies are its mean plus
Gaussian noise of one spread. Differences are in spreads, so that the figures hold for any data. Of
every truth the table has the share of trials that end in each outcome, at 3, 5 and 10 seeds a cell.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

from trainscope.comparison.crossing import CrossOutcome, cross_validate

SEEDS = (3, 5, 10)
# Means of A under a, B under a, A under b, B under b, in spreads.
TRUTHS = {
    "no difference": ((0, 0, 0, 0), CrossOutcome.UNDECIDED),
    "setups differ, methods do not": ((5, 5, 0, 0), CrossOutcome.UNDECIDED),
    "A ahead by 1": ((1, 0, 1, 0), CrossOutcome.FIRST),
    "A ahead by 2": ((2, 0, 2, 0), CrossOutcome.FIRST),
    "A ahead by 4": ((4, 0, 4, 0), CrossOutcome.FIRST),
    "A ahead by 3 under a, alike under b": ((3, 0, 0, 0), CrossOutcome.INTERACT),
    "A ahead by 2 under a, B by 2 under b": ((2, 0, 0, 2), CrossOutcome.INTERACT),
    "A ahead by 4 under a, B by 2 under b": ((4, 0, 0, 2), CrossOutcome.INTERACT),
}
NAMES = {
    CrossOutcome.FIRST: "A wins",
    CrossOutcome.SECOND: "B wins",
    CrossOutcome.INTERACT: "interact",
    CrossOutcome.UNDECIDED: "undecided",
}


def rates(
    means: tuple[float, ...], seeds: int, trials: int, rng: random.Random, *, uneven: bool = False
) -> dict[CrossOutcome, float]:
    """Return the share of trials that end in each outcome.

    With `uneven`, the cells under b have three times the spread of those under a.
    """
    spreads = (1.0, 1.0, 3.0, 3.0) if uneven else (1.0,) * 4
    counts: Counter[CrossOutcome] = Counter()
    for _ in range(trials):
        cells = [
            [rng.gauss(mean, spread) for _ in range(seeds)]
            for mean, spread in zip(means, spreads, strict=True)
        ]
        counts[cross_validate(*cells).outcome] += 1
    return {outcome: counts[outcome] / trials for outcome in CrossOutcome}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    heads = "  ".join(f"{NAMES[outcome]:>9}" for outcome in CrossOutcome)
    print(f"{'truth':<40}{'seeds':>6}  {heads}  {'right':>6}")
    for uneven in (False, True):
        if uneven:
            print("\nthe same with three times the spread under b")
        for name, (means, truth) in TRUTHS.items():
            for seeds in SEEDS:
                rng = random.Random(f"{options.seed} {name} {seeds} {uneven}")
                found = rates(means, seeds, options.trials, rng, uneven=uneven)
                row = "  ".join(f"{found[outcome]:>9.1%}" for outcome in CrossOutcome)
                print(f"{name:<40}{seeds:>6}  {row}  {found[truth]:>6.1%}")


if __name__ == "__main__":
    main()
