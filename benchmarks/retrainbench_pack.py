"""Pack what `retrainbench.py` made into the one table that comes with the package.

python benchmarks/retrainbench_pack.py OUT [TABLE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
from retrainbench import LENGTH, STEP_TAIL, families

from trainscope.convergence.bench import BenchCurve, load, save
from trainscope.convergence.bench.curves import COLUMNS

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
    for name in ("kind", "optimizer", "action", "schedule", "seed", "diverged"):
        print(f"  {name}: {dict(Counter(getattr(curve, name) for curve in curves))}")


if __name__ == "__main__":
    main()
