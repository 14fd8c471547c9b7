"""The tables of docs/predictors.md, from what benchmarks/predictors.py wrote.

python benchmarks/predictors_table.py RESULTS.jsonl [RESULTS.jsonl ...] [--figure FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainscope.report.correlation_display import CorrelationDisplay
from trainscope.report.pictures import save_alone
from trainscope.studies.correlate import correlate
from trainscope.studies.correlation import Coefficient, Correlation, Predictor

Row = dict[str, Any]
WITHIN = ("data", "structure")
LABELS = {
    "pruned_loss": "pruned train loss",
    "pruned_accuracy": "pruned test accuracy",
    "recalibrated_loss": "pruned train loss, BN recalibrated",
    "recalibrated_accuracy": "pruned test accuracy, BN recalibrated",
    "norm": "gradient norm",
    "snr": "gradient signal-to-noise",
    "mean_jsv": "mean JSV",
    "max_jsv": "largest JSV",
    "recalibrated_norm": "gradient norm, BN recalibrated",
    "recalibrated_snr": "gradient signal-to-noise, BN recalibrated",
    "recalibrated_mean_jsv": "mean JSV, BN recalibrated",
    "recalibrated_max_jsv": "largest JSV, BN recalibrated",
    "top_eigenvalue": "top Hessian eigenvalue",
    "trace": "Hessian trace",
    "ntk_trace": "NTK trace",
    "ntk_max_eigenvalue": "largest NTK eigenvalue",
    "ntk_condition_number": "NTK condition number",
    "ntk_effective_rank": "effective rank of the NTK",
    "ntk_alignment": "NTK alignment with the residual",
    "ntk_stable_steps": "linearised steps at LR 1/λmax",
    "activity_dead_share": "dead units",
    "activity_dormant_share": "dormant units",
    "activity_effective_rank": "effective rank of the features",
    "activity_srank": "srank of the features",
    "early": "accuracy after 1 of 20 epochs (5 %)",
    "ta": "TA, 10 of 20 epochs (50 %)",
}
LATE = ("early", "ta")


def read(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of several files, each retraining once."""
    found: dict[tuple[str, int], Row] = {}
    known: dict[str, Row] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            known[row["candidate"]] = {**row, **known.get(row["candidate"], {})}
            if "seed" in row:  # else it is of more.jsonl
                found[row["candidate"], row["seed"]] = row
    return [{**known[name], **row} for (name, _), row in found.items()]


def columns(rows: Sequence[Row], *, late: bool) -> list[str]:
    """Return what is known before the first step, and with `late` after some of the epochs."""
    names = dict.fromkeys(name for row in rows for name in row)
    seconds = {name for name in names if name.endswith("seconds")}
    text = {"candidate", "data", "structure", "criterion", "seed", "final"}
    before = [name for name in names if name not in {*seconds, *text, *LATE}]
    enough = 0.9 * len(rows)  # a condition number is often not known
    before = [name for name in before if sum(row.get(name) is not None for row in rows) >= enough]
    return before + ["early"] * late


def ask(rows: Sequence[Row], names: Sequence[str], draws: int = 1000) -> Correlation:
    told = {"early": "higher", "activity_dead_share": "lower", "activity_dormant_share": "lower"}
    return correlate(
        rows,
        "final",
        names,
        group=["candidate"],
        within=WITHIN,
        better="higher",
        directions=told,
        draws=draws,
    )


def written(each: Coefficient) -> str:
    if each.low is None or each.high is None:
        return f"{each.value:.2f}"
    return f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})"


def line(label: str, found: Sequence[Predictor | None]) -> str:
    cells = []
    for each in found:
        tau = None if each is None else each.coefficients.get("kendall")
        cells.append("–" if tau is None else written(tau))
    whole = found[0]
    extra = ["–", "–"]
    if whole is not None:
        ratios = (whole.anomaly, whole.counterexample)
        extra = ["–" if value is None else f"{100 * value:.0f} %" for value in ratios]
    return f"| {label} | {' | '.join([*cells, *extra])} |"


def main(paths: Sequence[Path], figure: Path | None) -> None:
    rows = read(paths)
    parts = {"all": rows}
    for structure in dict.fromkeys(row["structure"] for row in rows):
        parts[structure] = [row for row in rows if row["structure"] == structure]
    names = [*columns(rows, late=True), "ta"]
    found = {name: ask(part, names) for name, part in parts.items()}
    whole = found["all"]
    print(f"{whole.candidates} candidates, {whole.retrainings} retrainings")
    for name, each in found.items():
        print(f"{name}: {each.candidates} candidates, {each.retrainings} retrainings")
    heads = ["known before the end", *(f"tau, {name}" for name in found)]
    print("| " + " | ".join([*heads, "anomalies", "counterexamples"]) + " |")
    print("|---" * (len(heads) + 2) + "|")
    for each in whole.predictors:
        same = [next(p for p in f.predictors if p.column == each.column) for f in found.values()]
        print(line(LABELS.get(each.column, each.column), same))
    for label, late in (("before the first step", False), ("and after 5 %", True)):
        wanted = columns(rows, late=late)
        both = [ask(part, wanted, 300).together for part in parts.values()]
        print(line(f"all that is known {label}, left-out regression", both))
    for label, kind in (
        ("another retraining", "another"),
        ("a number without noise", "attainable"),
    ):
        cells = [
            "–" if f.ceiling is None else written(getattr(f.ceiling, kind)["kendall"])
            for f in found.values()
        ]
        print(f"| *{label}* | {' | '.join(cells)} | – | – |")
    for each in found.values():
        if each.ceiling is not None:
            print(f"ceiling: {each.ceiling.candidates} candidates")
    for note in whole.notes:
        print(f"note: {note}")
    spent = {
        name: sum(row.get(name) or 0.0 for row in rows) / len(rows)
        for name in ("known_seconds", "retrained_seconds")
    }
    print(f"CPU seconds: {spent}")
    ends = {}
    for row in rows:
        ends.setdefault((row["data"], row["structure"]), []).append(row["final"])
    for stratum, values in ends.items():
        low, high = min(values), max(values)
        print(f"{stratum}: {len(values)} retrainings end at {low:.1f} to {high:.1f} %")
    if figure is not None:
        save_alone(CorrelationDisplay.from_correlation(whole), figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    main(given.results, given.figure)
