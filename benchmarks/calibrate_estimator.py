"""Make `trainscope/convergence/calibration.json` from runs whose end is known.

    python benchmarks/calibrate_estimator.py --deepobs DIR [--runs OUT] [--bench TABLE]

OUT is what `calibration_runs.py` wrote, TABLE another table of RetrainBench than the one that is
shipped. Run it again after every change of the estimator. Without --runs the errors of those
problems, and the probability to reach a level (`calibrate_reach.py`), are kept as they are in the
file, of the estimator as it was then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_reach import reach
from estimator_protocol import Case, cases, is_clear, is_open, read_bench, read_deepobs, read_own
from numpy.typing import NDArray

import trainscope.convergence
from trainscope.convergence.bench import BenchQuestion, questions
from trainscope.convergence.bench import load as load_curves
from trainscope.convergence.calibration import EDGES, PROBABILITIES, load
from trainscope.convergence.forecast import RULE_ERROR, Forecast, forecast
from trainscope.convergence.scale import shared_scale
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


def of_loss(question: BenchQuestion) -> Forecast:
    """Return the forecast of a test loss with a reference, before calibration."""
    assert question.large is not None
    scale = shared_scale([question.small, question.large])
    small = first_stage(question.small.on(scale))
    reference = first_stage(question.large.on(scale))
    assert small is not None
    return forecast(small, reference, np.array([scale.quality(question.target)]))


def losses(path: Path | None) -> dict[str, list[BenchQuestion]]:
    """Return RetrainBench's questions of test losses, by problem."""
    found: dict[str, list[BenchQuestion]] = {}
    open_to_all = [curve for curve in load_curves(path) if is_open(curve)]
    for question in questions(open_to_all, "passage", "test_loss", watched=WATCHED):
        found.setdefault(f"retrainbench {question.watched.kind}", []).append(question)
    return {name: asked for name, asked in found.items() if len(asked) >= FEWEST}


def errors(
    told: Sequence[Forecast], truth: Floats, length: Floats, sight_of: str | None
) -> dict[str, Any]:
    """Return the quantiles of the standardised errors of one problem, and how often it reached.

    Args:
        told: Its N forecasts.
        truth: [N], first passages; inf beyond the run.
        length: [N], of the runs.
        sight_of: The kind of forecast whose weight in sight is to be kept; None for none.
    """
    centre, scale, sight = np.array([(f.centre[0], f.scale[0], f.in_sight[0]) for f in told]).T
    z = np.array([f.error(float(np.log(t)))[0] for f, t in zip(told, truth, strict=True)])
    reached = np.isfinite(truth)
    # Passages beyond a run's end are not seen. Cases whose forecast lies well inside the run miss
    # few of them; the rest tell more of the lower half.
    inside = reached & (centre + 1.3 * scale < np.log(length))
    all_, safe = np.quantile(z[reached], PROBABILITIES), None
    if inside.sum() >= 20:
        safe = np.quantile(z[inside], PROBABILITIES)
        all_ = np.where(PROBABILITIES > 0.5, (all_ + safe) / 2, all_)
    out: dict[str, Any] = {"cases": int(reached.sum()), "z": np.round(all_, 3).tolist()}
    if sight_of is not None:
        # A match is wrong about reaching only where it says that the run is long enough.
        counted = (centre + 0.3 < np.log(length)) | (sight_of == "alone")
        bins = np.clip(np.searchsorted(EDGES, sight, side="right") - 1, 0, len(EDGES) - 2)
        for name, keep in (("seen", counted), ("reached", counted & reached)):
            out[name] = np.bincount(bins[keep], minlength=len(EDGES) - 1).tolist()
    return out


def of_cases(name: str, problem: list[Case], kind: str) -> dict[str, Any]:
    """Return what the file holds of one problem's accuracies."""
    # Short runs on small test sets reach what lies just above them by luck: of what is out of reach
    # for good they tell nothing.
    told_apart = kind != "rule" and not name.startswith("retrainbench ")
    return errors(
        [forecasts(case, kind) for case in problem],
        np.array([case.truth for case in problem]),
        np.array([case.small.length for case in problem], dtype=np.float64),
        kind if told_apart else None,
    )


def of_losses(asked: list[BenchQuestion]) -> dict[str, Any]:
    """Return what the file holds of one problem's test losses."""
    truth, horizon = np.array([(q.truth, q.horizon) for q in asked]).T
    return errors([of_loss(question) for question in asked], truth, horizon, None)


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
        kind: {name: of_cases(name, problem, kind) for name, problem in sorted(problems.items())}
        for kind in ("matched", "alone", "rule")
    }
    kinds["loss"] = {name: of_losses(asked) for name, asked in sorted(losses(args.bench).items())}
    path = Path(trainscope.convergence.__file__).with_name("calibration.json")
    before = json.loads(path.read_text("utf-8"))
    if not own:
        for kind, problem in before["kinds"].items():
            kept = {k: v for k, v in problem.items() if not k.startswith("retrainbench ")}
            kinds[kind] = dict(sorted((kept | kinds[kind]).items()))
    about = "made by benchmarks/calibrate_estimator.py; see trainscope/convergence/calibration.py"
    whole = {"about": about, "probabilities": PROBABILITIES.round(3).tolist(), "kinds": kinds}
    whole["reach"] = before["reach"]
    _write(path, whole)
    if own:
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
