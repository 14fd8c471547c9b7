"""A Diagnosis as rows of text: one wording for the terminal, the notebook and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainscope.records import Diagnosis
from trainscope.records.columns import COLUMNS, Columns
from trainscope.records.measurement import Scalar, Status
from trainscope.records.numbers import estimate, number
from trainscope.records.retrained import retrained

if TYPE_CHECKING:
    from trainscope.probes.scalar_spec import Description


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        probe: The probe's name in words.
        label: The number's name and unit.
        cells: Before, after, recalibrated and the damage; "" where there is none.
        better: "higher" or "lower"; "" where neither is better in itself.
    """

    probe: str
    label: str
    cells: tuple[str, str, str, str]
    better: str = ""


def has_recalibrated(diagnosis: Diagnosis) -> bool:
    """Return whether any probe was measured with batch norm recalibrated."""
    return any(columns.recalibrated is not None for columns in diagnosis.probes.values())


def rows(diagnosis: Diagnosis) -> list[Row]:
    """Return a row for every scalar of every probe, and one for a probe that has none."""
    return [row for name, columns in diagnosis.probes.items() for row in _probe(name, columns)]


def reasons(diagnosis: Diagnosis) -> list[str]:
    """Return why numbers are missing or doubtful, each reason once.

    The columns are named where it is not that of all.
    """
    found: dict[str, None] = {}
    for name, columns in diagnosis.probes.items():
        said = description(name)
        there = {
            column: measurement
            for column in COLUMNS
            if (measurement := getattr(columns, column)) is not None
        }
        by_reason: dict[tuple[str, str], list[str]] = {}
        for column, measurement in there.items():
            metric = retrained(measurement).metric
            if measurement.status is not Status.OK:
                why = f"{measurement.status}: {measurement.reason}"
                by_reason.setdefault((said.heading(metric), why), []).append(column)
            firsts = _first_settings(said, dict.fromkeys(measurement.scalars))
            for label, scalar in measurement.scalars.items():
                if scalar.value is None and label not in firsts.values():
                    key = (said.label(firsts.get(label, label), metric), str(scalar.reason))
                    by_reason.setdefault(key, []).append(column)
        for (what, why), which in by_reason.items():
            whose = "" if len(which) == len(there) else f" ({', '.join(which)})"
            found[f"{what}{whose}: {why}"] = None
    return list(found)


def notes(diagnosis: Diagnosis) -> list[str]:
    """Return what is missing or must be known beside the numbers, each one sentence."""
    return [*reasons(diagnosis), *_comparable(diagnosis), *diagnosis.notes]


def _comparable(diagnosis: Diagnosis) -> list[str]:
    """Return what the TA is comparable with: it never stands without its schedule."""
    columns = diagnosis.probes.get("trainability_accuracy")
    held = {} if columns is None else columns.before.notes
    if "schedule" not in held:  # nothing was retrained
        return []
    which = "TA" if "accuracy" in held else "Trainability"
    what = held.get("accuracy") or held.get("metric")
    recalibrated = (
        {} if columns is None or columns.recalibrated is None else columns.recalibrated.notes
    )
    same = f"; {recalibrated['retraining']}" if "retraining" in recalibrated else ""
    return [
        f"{which}: {what}, LR schedule {held['schedule']}, {held['settings']}; "
        f"comparable {held['comparable']}{same}."
    ]


def description(probe: str) -> Description:
    """Return what a probe says of itself, see `trainscope.probes.scalar_spec`."""
    from trainscope.probes.scalar_spec import described  # brings torch, which only this needs

    return described(probe)


def _probe(name: str, columns: Columns) -> list[Row]:
    said = description(name)
    measured = [columns.before, columns.after, columns.recalibrated]
    names = dict.fromkeys(
        label for column in measured if column is not None for label in column.scalars
    )
    if not names:
        cells = tuple("" if column is None else str(column.status) for column in measured)
        return [Row(said.title, "", (cells[0], cells[1], cells[2], ""))]
    damage = columns.damage()
    metric = next(retrained(m).metric for m in measured if m is not None)
    title = said.heading(metric)
    out = []
    firsts = _first_settings(said, names)
    for label in names:
        if label in firsts.values():  # the number without a setting, again
            continue
        found = [None if column is None else column.scalars.get(label) for column in measured]
        unit = next((scalar.unit for scalar in found if scalar is not None), "")
        text = said.label(firsts.get(label, label), metric)
        ratio = f"×{number(damage[label])}" if label in damage else ""
        cells = (_cell(found[0]), _cell(found[1]), _cell(found[2]), ratio)
        spec = said.spec(label)
        better = "" if spec is None else spec.better
        out.append(Row(title, f"{text} [{unit}]" if unit else text, cells, better))
    return out


def _first_settings(said: Description, names: Mapping[str, None]) -> dict[str, str]:
    """Return the first of a number's settings, "x@1e-2", by the name of the number, "x"."""
    found: dict[str, str] = {}
    for name in names:
        number_of, at, _ = name.partition("@")
        if at and number_of in names and said.spec(name) is not None:
            found.setdefault(number_of, name)
    return found


def _cell(scalar: Scalar | None) -> str:
    if scalar is None:
        return ""
    if scalar.value is None:
        return "–"
    if scalar.stderr is None:
        return number(scalar.value)
    return estimate(scalar.value, scalar.stderr)
