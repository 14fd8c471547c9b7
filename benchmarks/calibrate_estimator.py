"""Make `trainscope/convergence/calibration.json` from runs whose end is known.

    python benchmarks/calibrate_estimator.py --deepobs DIR [--runs OUT] [--bench TABLE]

OUT is what `calibration_runs.py` wrote, TABLE another table of RetrainBench than the one that is
shipped. Run it again after every change of the estimator. Without --runs the errors of those
problems are kept as they are in the file, of the estimator as it was then, and the probability to
reach a level (`calibrate_reach.py`) is fitted without them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_reach import reach
from estimator_protocol import Case, cases, is_clear, read_bench, read_deepobs, read_own
from numpy.typing import NDArray

import trainscope.convergence
from trainscope.convergence.calibration import EDGES, PROBABILITIES, load
from trainscope.convergence.forecast import RULE_ERROR, Forecast, forecast
from trainscope.convergence.stage import first_stage

WATCHED = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
FEWEST = 40
"""Cases below which a problem has no quantiles."""
Floats = NDArray[np.float64]


def forecasts(case: Case, kind: str) -> Forecast:
    """Return one case's forecast, before calibration."""
    levels = np.array([case.target])
    small = first_stage(case.small.curve(case.epochs))
    reference = first_stage(case.large.curve())
    assert small is not None
    assert reference is not None
    if kind == "rule":
        centre = np.log(case.ratio * case.share * case.large.length)
        return Forecast(np.array([centre]), np.array([RULE_ERROR]), np.ones(1), "rule")
    return forecast(small, reference if kind == "matched" else None, levels)


def errors(problem: list[Case], kind: str) -> dict[str, Any]:
    """Return the quantiles of the standardised errors of one problem, and how often it reached."""
    rows = []
    for case in problem:
        f = forecasts(case, kind)
        z = f.error(float(np.log(case.truth)))[0]
        rows.append((f.centre[0], f.scale[0], f.in_sight[0], z, case.truth, case.small.length))
    centre, scale, sight, z, truth, length = np.array(rows).T
    reached = np.isfinite(truth)
    # Passages beyond a run's end are not seen. Cases whose forecast lies well inside the run miss
    # few of them; the rest tell more of the lower half.
    inside = reached & (centre + 1.3 * scale < np.log(length))
    all_, safe = np.quantile(z[reached], PROBABILITIES), None
    if inside.sum() >= 20:
        safe = np.quantile(z[inside], PROBABILITIES)
        all_ = np.where(PROBABILITIES > 0.5, (all_ + safe) / 2, all_)
    out: dict[str, Any] = {"cases": int(reached.sum()), "z": np.round(all_, 3).tolist()}
    # Short runs on small test sets reach what lies just above them by luck: of what is out of reach
    # for good they tell nothing.
    if kind != "rule" and not problem[0].small.problem.startswith("retrainbench "):
        # A match is wrong about reaching only where it says that the run is long enough.
        counted = (centre + 0.3 < np.log(length)) | (kind == "alone")
        bins = np.clip(np.searchsorted(EDGES, sight, side="right") - 1, 0, len(EDGES) - 2)
        for name, keep in (("seen", counted), ("reached", counted & reached)):
            out[name] = np.bincount(bins[keep], minlength=len(EDGES) - 1).tolist()
    return out


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deepobs", type=Path, required=True)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--bench", type=Path)
    args = parser.parse_args()
    problems: dict[str, list[Case]] = {}
    own = read_own(args.runs) if args.runs else []
    for case in cases([*read_deepobs(args.deepobs), *own], WATCHED):
        problems.setdefault(case.small.problem, []).append(case)
    for case in filter(is_clear, cases(read_bench(args.bench), WATCHED)):
        problems.setdefault(case.small.problem, []).append(case)
    problems = {name: held for name, held in problems.items() if len(held) >= FEWEST}
    kinds = {
        kind: {name: errors(problem, kind) for name, problem in sorted(problems.items())}
        for kind in ("matched", "alone", "rule")
    }
    path = Path(trainscope.convergence.__file__).with_name("calibration.json")
    if not own:
        for kind, before in json.loads(path.read_text("utf-8"))["kinds"].items():
            kept = {k: v for k, v in before.items() if not k.startswith("retrainbench ")}
            kinds[kind] = dict(sorted((kept | kinds[kind]).items()))
    about = "made by benchmarks/calibrate_estimator.py; see trainscope/convergence/calibration.py"
    whole = {"about": about, "probabilities": PROBABILITIES.round(3).tolist(), "kinds": kinds}
    whole["reach"] = {"all": [0.0] * 4, "without": {}}
    _write(path, whole)
    load.cache_clear()  # how late the forecasts are, as has just been written
    whole["reach"] = reach(args.deepobs, args.runs)
    _write(path, whole)
    print(f"{path}: {sum(map(len, problems.values()))} cases of {', '.join(problems)}")


def _write(path: Path, whole: dict[str, Any]) -> None:
    text = json.dumps(whole)
    for key in ("cases", "all", "without"):
        text = text.replace(f'"{key}"', f'\n"{key}"')
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
