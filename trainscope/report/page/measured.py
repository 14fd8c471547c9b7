"""What the page of one Diagnosis draws: the four figures, as data for its script."""

from __future__ import annotations

from math import isfinite

import numpy as np

from trainscope.records import Diagnosis, Json
from trainscope.report.density_display import DECADES, DensityDisplay
from trainscope.report.gradient_display import PANELS, GradientDisplay
from trainscope.report.page.markup import rounded
from trainscope.report.page.plots import COLUMN_COLOURS, singular_values
from trainscope.report.retraining_display import RetrainingDisplay
from trainscope.report.style import LABELS, measured

MOST_POINTS = 300
"""A density's curve is thinned to about so many points."""
MOST_ROOM, ROWS_OF_ROOM = 1, 40
"""Rows left free above and below a heading: the more layers there are, the lower is a row."""


def measured_plots(diagnosis: Diagnosis) -> list[Json]:
    """Return what there is to draw; of a probe that was not measured, nothing."""
    drawn = (
        ("trainability_accuracy", "lrs", _retraining),
        ("jacobian", "singular_values", _singular_values),
        ("curvature", "density_x", _density),
        ("gradient", "layer_norms", _gradient),
    )
    found: list[Json] = []
    for probe, array, draw in drawn:
        columns = diagnosis.probes.get(probe)
        if columns is not None and measured(columns, array):
            found += draw(diagnosis)
    return found


def _retraining(diagnosis: Diagnosis) -> list[Json]:
    display = RetrainingDisplay.from_diagnosis(diagnosis)
    lrs = list(dict.fromkeys(lr for _, lr in display.curves))
    series = [
        {
            "label": f"{LABELS[column]}, LR {lr:g}",
            "colour": COLUMN_COLOURS[column],
            "dash": lrs.index(lr),
            "knots": True,
            "points": [
                [place, rounded(value)]
                for place, value in zip(display.places(len(curve)), curve, strict=True)
                if isfinite(value)
            ],
        }
        for (column, lr), curve in display.curves.items()
    ]
    spec = {
        "xlabel": display.xlabel,
        "xshort": "epoch" if display.steps is None else "step",
        "ylabel": display.tested,
        "ylog": display.logarithmic,
        "from0": True,
    }
    note = "Colours tell columns, dashes learning rates."
    return [_plot("lines", display.title, note, spec, series=series)]


def _singular_values(diagnosis: Diagnosis) -> list[Json]:
    plot = singular_values(diagnosis, diagnosis.probes["jacobian"])
    title, note = "Jacobian singular values", "Of every pinned sample. Dashed: means."
    return [{**plot, "title": title, "note": note}]


def _density(diagnosis: Diagnosis) -> list[Json]:
    display = DensityDisplay.from_diagnosis(diagnosis)
    peak = max(float(y.max()) for _, y in display.densities.values())
    series = []
    for column, (xs, ys) in display.densities.items():
        seen = ys >= peak * 10.0**-DECADES
        kept = np.flatnonzero(seen)[:: max(1, int(seen.sum()) // MOST_POINTS)]
        series.append(
            {
                "label": LABELS[column],
                "colour": COLUMN_COLOURS[column],
                "points": [[rounded(float(xs[k])), rounded(float(ys[k]))] for k in kept],
            }
        )
    reach = min(float(np.abs(x).max()) for x, _ in display.densities.values())
    spec = {
        "xlabel": f"eigenvalue [{display.unit}]",
        "xshort": "eigenvalue",
        "ylabel": "spectral density",
        "ylog": True,
        # Columns can differ by decades: the narrowest one sets the linear part.
        "xlinear": float(10 ** np.floor(np.log10(reach / 5))) if reach > 0 else None,
    }
    rules = [
        {"x": rounded(top), "colour": COLUMN_COLOURS[column]}
        for column, top in display.tops.items()
    ]
    note = "Density of the Hessian's eigenvalues. Dashed: the largest."
    return [_plot("lines", display.title, note, spec, series=series, rules=rules)]


def _gradient(diagnosis: Diagnosis) -> list[Json]:
    display = GradientDisplay.from_diagnosis(diagnosis)
    panels = display.panels
    names: list[str] = []
    heads: list[Json] = []
    room = min(MOST_ROOM, sum(map(len, panels.values())) // ROWS_OF_ROOM)
    for kind, held in panels.items():
        if len(panels) > 1:
            heads.append({"row": len(names) + room, "text": PANELS[kind]})
            names += [""] * (1 + 2 * room)
        names += held
    if not panels:
        return []
    place = {name: row for row, name in enumerate(names)}
    series = []
    for column, (layers, norms) in display.norms.items():
        known = {
            name: value
            for name, value in zip(layers, norms, strict=True)
            if value is not None and value > 0
        }
        points = [[place[name], rounded(known[name])] for name in names if name in known]
        colour = COLUMN_COLOURS[column]
        series.append({"label": LABELS[column], "colour": colour, "points": points})
    spec = {"xlabel": f"gradient norm [{display.unit}]"}
    title, note = "Gradient norm by layer", "In the network's order, input on top."
    return [_plot("layers", title, note, spec, series=series, names=names, heads=heads)]


def _plot(kind: str, title: str, note: str, spec: Json, **more: object) -> Json:
    return {"kind": kind, "title": title, "note": note, "spec": spec, **more}
