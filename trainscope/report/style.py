"""Colours and dashes of every figure, safe for colour-blind eyes (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainscope.errors import RecordError
from trainscope.records import Columns, Diagnosis, Measurement

COLOURS = {
    "before": "#0072B2",
    "after": "#D55E00",
    "recalibrated": "#009E73",
    "alone": "#0072B2",
}
LABELS = {
    "before": "before",
    "after": "after",
    "recalibrated": "after, batch norm recalibrated",
    "alone": "the network",
}
DASHES = ("-", "--", ":", "-.")
SERIES = ("#0072B2", "#D55E00", "#009E73", "#B8578F", "#C98A00", "#3A9BD1", "#6F6F6F")
"""Colours of settings, in order; after the last one they come again with another dash.

The page's are the same in the light; the last four are darker than Okabe and Ito's, for white.
"""


def series_style(index: int) -> dict[str, Any]:
    """Return the colour and the dash of the index-th setting."""
    return {
        "color": SERIES[index % len(SERIES)],
        "linestyle": DASHES[index // len(SERIES) % len(DASHES)],
    }


def styles(labels: Iterable[str], order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the colour and the dash of every setting drawn.

    Args:
        labels: The settings drawn.
        order: All settings, so that one has the same colour in every figure; by default those
            drawn.
    """
    held = list(labels)
    places = {label: place for place, label in enumerate(order or held)}
    return [series_style(places.get(label, place)) for place, label in enumerate(held)]


def measured(columns: Columns, array: str) -> dict[str, Measurement]:
    """Return the columns that have an array, in order; a network without an action is "alone"."""
    found = {
        "alone" if columns.after is None else "before": columns.before,
        "after": columns.after,
        "recalibrated": columns.recalibrated,
    }
    return {n: m for n, m in found.items() if m is not None and m.arrays.get(array)}


def drawn_from(diagnosis: Diagnosis, probe: str, array: str) -> dict[str, Measurement]:
    """Return the columns of a Diagnosis that a figure is drawn from, as `measured` does.

    Raises:
        RecordError: There is none; the message says why the probe did not measure.
    """
    columns = diagnosis.probes.get(probe)
    found = {} if columns is None else measured(columns, array)
    if not found:
        why = "was not asked for" if columns is None else columns.before.reason or "has no values"
        raise RecordError(f"the probe {probe} has nothing to draw: {why}")
    return found


def unit_of(columns: Mapping[str, Measurement], scalar: str, usual: str) -> str:
    """Return the unit of a number in the columns that are drawn."""
    found = (m.scalars[scalar].unit for m in columns.values() if scalar in m.scalars)
    return next(found, usual)
