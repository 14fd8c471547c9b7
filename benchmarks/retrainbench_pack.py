"""Pack what `retrainbench.py` made into the one table that comes with the package.

python benchmarks/retrainbench_pack.py OUT [TABLE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from retrainbench import ACTIONS, LENGTH, STEP_TAIL, families

from trainscope.convergence.bench import BenchCurve, load, save
from trainscope.convergence.bench.curves import COLUMNS
from trainscope.convergence.bench.splits import PUT_ASIDE_NETWORKS

SHIPPED = Path(__file__).parents[1] / "trainscope/convergence/bench/retrainbench.npz"


def read(path: Path) -> list[BenchCurve]:
    """Return the curves of one family."""
    curves = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        first, records = int(row["first"]), len(row["lr"]) - 1
        tail = {"steps": STEP_TAIL, "wsd": first // 4, "constant": LENGTH - first}
        planned = first + tail.get(row["schedule"], records)
        for name in COLUMNS:
            row[name] = np.array([math.nan if x is None else x for x in row[name]], dtype=float)
        curves.append(BenchCurve(**row, planned=max(planned, records)))
    return curves


def card(curves: Sequence[BenchCurve]) -> Iterator[str]:
    """Yield the rows of what there is of every kind, as the data card has them, in Markdown."""
    every = {f"{structure} {ratio:g}" for structure, ratio in ACTIONS}
    kinds: dict[str, list[BenchCurve]] = {}
    for curve in curves:
        kinds.setdefault(curve.kind, []).append(curve)
    heads = "problem and network", "weights", "families", "curves", "optimizers", "actions", "steps"
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for kind, held in sorted(kinds.items()):
        aside = " (put aside)" if held[0].network in PUT_ASIDE_NETWORKS else ""
        cells = (
            f"{kind}{aside}",
            f"{held[0].parameters:,}",
            f"{len({curve.family for curve in held})}",
            f"{len(held):,}",
            ", ".join(sorted({curve.optimizer for curve in held})),
            _listed({curve.action for curve in held}, every),
            ", ".join(str(steps) for steps in sorted({curve.steps for curve in held})),
        )
        yield f"| {' | '.join(cells)} |"


def _listed(actions: set[str], every: set[str]) -> str:
    return "all six" if actions == every else ", ".join(sorted(actions))


def main() -> None:
    """Pack, and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("table", type=Path, nargs="?", default=SHIPPED)
    args = parser.parse_args()
    grid = [args.out / f"{family.name}.jsonl" for family in families()]
    made = [path for path in grid if path.exists()]
    save((curve for path in made for curve in read(path)), args.table)
    curves = load(args.table)
    print(f"{len(curves)} curves of {len(made)} families; {len(grid)} families are planned")
    print(f"{args.table}: {args.table.stat().st_size / 1e6:.2f} MB")
    for name in ("optimizer", "action", "schedule", "seed", "diverged"):
        print(f"  {name}: {dict(Counter(getattr(curve, name) for curve in curves))}")
    print("\n".join(card(curves)))


if __name__ == "__main__":
    main()
