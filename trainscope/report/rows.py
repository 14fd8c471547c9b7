"""A Diagnosis as rows of text: one wording for the terminal, the notebook and the page."""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.records import Diagnosis
from trainscope.records.columns import COLUMNS, Columns
from trainscope.records.measurement import Measurement, Scalar, Status
from trainscope.records.numbers import estimate, number
from trainscope.records.retrained import START_METRIC, retrained

LABELS = {
    "ta": "trainability accuracy (TA)",
    "start_accuracy": "test accuracy, not retrained",
    "norm": "gradient norm",
    "norm_unbiased": "gradient norm, unbiased",
    "snr": "gradient signal-to-noise",
    "noise_scale": "simple noise scale",
    "loss": "loss",
    "mean_jsv": "mean JSV",
    "std_over_mean": "JSV std / mean",
    "max_jsv": "largest JSV",
    "min_jsv": "smallest JSV",
    "condition_number": "condition number",
    "share_below_1e-3": "JSVs under 1e-3 of the largest",
    "dead_outputs": "dead outputs",
    "singular_samples": "samples with a singular Jacobian",
    "top_eigenvalue": "top Hessian eigenvalue",
    "smallest_eigenvalue": "smallest Hessian eigenvalue",
    "trace": "Hessian trace",
    "max_stable_lr": "largest stable LR, 2/λmax",
}
PROBES = {
    "trainability_accuracy": "Trainability accuracy",
    "gradient": "Gradient",
    "jacobian": "Jacobian singular values",
    "curvature": "Loss curvature",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        probe: The probe's name in words.
        label: The number's name and unit.
        cells: Before, after, recalibrated and the damage; "" where there is none.
    """

    probe: str
    label: str
    cells: tuple[str, str, str, str]


def has_recalibrated(diagnosis: Diagnosis) -> bool:
    """Return whether any probe was measured with batch norm recalibrated."""
    return any(columns.recalibrated is not None for columns in diagnosis.probes.values())


def rows(diagnosis: Diagnosis) -> list[Row]:
    """Return a row for every scalar of every probe, and one for a probe that has none."""
    return [row for name, columns in diagnosis.probes.items() for row in _probe(name, columns)]


def reasons(diagnosis: Diagnosis) -> list[str]:
    """Return why numbers are missing or doubtful, each reason once."""
    found: dict[str, None] = {}
    for name, columns in diagnosis.probes.items():
        for column in COLUMNS:
            measurement: Measurement | None = getattr(columns, column)
            if measurement is None:
                continue
            if measurement.status is not Status.OK:
                found[f"{PROBES.get(name, name)}: {measurement.status}: {measurement.reason}"] = (
                    None
                )
            for label, scalar in measurement.scalars.items():
                if scalar.value is None:
                    which = "" if diagnosis.action is None else f" ({column})"
                    found[f"{LABELS.get(label, label)}{which}: {scalar.reason}"] = None
    return list(found)


def notes(diagnosis: Diagnosis) -> list[str]:
    """Return what is missing or must be known beside the numbers, each one sentence."""
    return [*reasons(diagnosis), *_comparable(diagnosis), *diagnosis.notes]


def _comparable(diagnosis: Diagnosis) -> list[str]:
    """Return what the TA is comparable with: it never stands without its schedule."""
    columns = diagnosis.probes.get("trainability_accuracy")
    held = {} if columns is None else columns.before.notes
    if not held:
        return []
    which = "TA" if "accuracy" in held else "Trainability"
    what = held.get("accuracy") or held.get("metric")
    return [
        f"{which}: {what}, LR schedule {held['schedule']}, {held['settings']}; "
        f"comparable {held['comparable']}."
    ]


def _probe(name: str, columns: Columns) -> list[Row]:
    title = PROBES.get(name, name)
    measured = [columns.before, columns.after, columns.recalibrated]
    names = dict.fromkeys(
        label for column in measured if column is not None for label in column.scalars
    )
    if not names:
        cells = tuple("" if column is None else str(column.status) for column in measured)
        return [Row(title, "", (cells[0], cells[1], cells[2], ""))]
    damage = columns.damage()
    out = []
    first = next((label for label in names if label.startswith("ta@")), None)
    told = next(retrained(m) for m in measured if m is not None)
    for label in names:
        if label == first:  # `ta` again
            continue
        found = [None if column is None else column.scalars.get(label) for column in measured]
        unit = next((scalar.unit for scalar in found if scalar is not None), "")
        mean = "TA" if told.metric.is_accuracy else told.title
        shown = first if label == "ta" and first is not None else label
        text = LABELS.get(shown, shown.replace("ta@", f"{mean} at LR "))
        if label == START_METRIC:
            text = f"{told.tested}, not retrained"
        ratio = f"×{number(damage[label])}" if label in damage else ""
        cells = (_cell(found[0]), _cell(found[1]), _cell(found[2]), ratio)
        out.append(Row(title, f"{text} [{unit}]" if unit else text, cells))
    return out


def _cell(scalar: Scalar | None) -> str:
    if scalar is None:
        return ""
    if scalar.value is None:
        return "–"
    if scalar.stderr is None:
        return number(scalar.value)
    return estimate(scalar.value, scalar.stderr)
