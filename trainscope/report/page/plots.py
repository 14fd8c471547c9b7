"""What the page's script draws beside the runs themselves: one JSON object a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainscope.comparison.comparison import MOST_ESTIMATES, Comparison
from trainscope.comparison.estimates import GroupEstimate
from trainscope.comparison.facts import final_value
from trainscope.comparison.settings import Setting
from trainscope.records import Json, Metric
from trainscope.records.trainability import trainability_name
from trainscope.report.page.markup import rounded
from trainscope.report.series import (
    AXES,
    along,
    axis_of,
    better_sentence,
    by_metric,
    epoch_axis,
    is_logarithmic,
    loss_axis,
    measured_along,
    name_of,
    ta_axis,
    test_axis,
)
from trainscope.report.setting_points import AXES as SETTING_AXES
from trainscope.report.setting_points import Against, Number, points
from trainscope.report.singular_values_display import values_axis
from trainscope.report.style import LABELS, measured

BINS = 48
FEW = 4
"""So many settings stand side by side in half a card's width."""
COLUMN_COLOURS = {"before": 0, "after": 1, "recalibrated": 2, "alone": 0}


def plots(comparison: Comparison) -> list[Json]:
    """Return what there is to draw, in the order of the page."""
    groups = comparison.groups
    found = []
    places = {item.label: k for k, item in enumerate(groups)}
    several = by_metric(groups)
    for metric, held in several:
        found += _curves(held, metric, [places[item.label] for item in held], len(several) > 1)
    drawn = [held for held in comparison.estimates if _future(held)]
    found += [_estimate(held, groups) for held in drawn[:MOST_ESTIMATES]]
    for metric, held in several:
        found += _numbers(held, metric, places, comparison.ta_epochs)
    found += _along(groups)
    for diagnosis in comparison.diagnoses:
        columns = diagnosis.probes.get("jacobian")
        if columns is not None and measured(columns, "singular_values"):
            found.append(singular_values(diagnosis, columns))
    return found


def _curves(
    groups: Sequence[Setting], metric: Metric, of: Sequence[int], several: bool
) -> list[Json]:
    runs = [run for item in groups for run in item.runs if len(run.epochs) > 1]
    if not runs:
        return []
    found = []
    loss = any(record.train_loss is not None for run in runs for record in run.epochs)
    for y, known in (("a", True), ("l", loss)):
        if not known:
            continue
        title = f"Test {metric.name}" if y == "a" else "Training loss"
        if several and y == "l":
            title += f" of runs told by {metric.name}"
        for x, place, more in (
            (
                "e",
                "epoch",
                "Mean over seeds, band from lowest to highest. ▼ LR drops; ringed: too early.",
            ),
            ("t", "lr_time", "What each LR reaches after the same sum of LR over the epochs."),
        ):
            spec = {
                "xlabel": epoch_axis(groups) if place == "epoch" else AXES[place],
                "xshort": "epoch" if x == "e" else "LR time",
                "ylabel": test_axis(metric) if y == "a" else loss_axis(metric),
                "xlog": x == "t",
                "ylog": y == "l",
                "from0": x == "e",
            }
            found.append(
                {
                    "kind": "curves",
                    "title": f"{title} against {'epoch' if x == 'e' else 'LR time'}",
                    "note": more,
                    "x": x,
                    "y": y,
                    "of": of,
                    "sign": metric.sign,
                    "percent": metric.unit == "%",
                    "spec": spec,
                }
            )
    return found


def _numbers(
    groups: Sequence[Setting], metric: Metric, places: Mapping[str, int], ta_epochs: int | None
) -> list[Json]:
    found = []
    ta = trainability_name(metric)
    wanted: tuple[tuple[Number, Against, str], ...] = (
        ("ta", "ratio", f"{ta[0].upper()}{ta[1:]}, first {ta_epochs} epochs"),
        ("final", "ratio", f"Final {metric.name}"),
        ("final", "speedup", f"Final {metric.name} against speedup"),
    )
    for number, against, title in wanted:
        shown = points(groups, number, against)
        sweep = len({point.x for point in shown if point.x is not None}) > 1
        if not shown or (against == "speedup" and not sweep):
            continue
        seeds = {item.label: _seeds(item, number) for item in groups}
        found.append(
            {
                "kind": "numbers",
                "narrow": not sweep and len(shown) <= FEW,
                "title": f"{title} against ratio" if sweep and against == "ratio" else title,
                "note": "Means with the standard deviation over seeds."
                + ("" if sweep else " Small dots: single runs."),
                "spec": {
                    "xlabel": SETTING_AXES[against] if sweep else "setting",
                    "ylabel": ta_axis(metric) if number == "ta" else f"final {test_axis(metric)}",
                    "sign": metric.sign,
                    "unit": metric.unit,
                    "sweep": sweep,
                },
                "points": [
                    {
                        "s": places[point.label],
                        "line": point.line,
                        "x": rounded(point.x),
                        "v": rounded(point.value),
                        "sd": rounded(point.spread),
                        "vals": [rounded(value) for value in point.values],
                        "seeds": seeds[point.label],
                        "lost": point.diverged,
                    }
                    for point in shown
                ],
            }
        )
    return found


def _seeds(item: Setting, number: Number) -> list[int | None]:
    if number == "ta":
        return [run.seed for run in item.runs if len(run.epochs) > 1]
    return [run.seed for run in item.runs if final_value(run) is not None]


def _along(groups: Sequence[Setting]) -> list[Json]:
    found = []
    for probe, scalar in measured_along(groups):
        series: list[list[list[float | None]] | None] = []
        unit = ""
        for item in groups:
            held = along(item, probe, scalar)
            series.append(None)
            if held is not None:
                curve, unit = held
                rows = zip(curve.x, curve.mean, curve.low, curve.high, strict=True)
                series[-1] = [[rounded(value) for value in row] for row in rows]
        known = [row for held_rows in series if held_rows for row in held_rows]
        if not known:
            continue
        name = name_of(probe, scalar)
        found.append(
            {
                "kind": "along",
                "title": f"{name[:1].upper()}{name[1:]} along retraining",
                "note": "Epoch 0: after the action, not retrained."
                + better_sentence(probe, scalar),
                "spec": {
                    "xlabel": AXES["epoch"],
                    "xshort": "epoch",
                    "ylabel": axis_of(name, unit),
                    "ylog": is_logarithmic(probe, scalar)
                    and all(row[2] is not None and row[2] > 0 for row in known),
                },
                "series": series,
            }
        )
    return found


def singular_values(diagnosis: Any, columns: Any) -> Json:
    """Return the densities of all singular values, before and after."""
    values = {
        name: np.concatenate([np.asarray(row, float) for row in m.arrays["singular_values"]])
        for name, m in measured(columns, "singular_values").items()
    }
    top = max(float(held.max(initial=0.0)) for held in values.values()) or 1.0
    shown = {name: np.maximum(held, top * 1e-12) for name, held in values.items()}
    edges = np.geomspace(min(float(v.min()) for v in shown.values()) / 1.1, top * 1.1, BINS + 1)
    width = np.diff(np.log10(edges))
    series = []
    for name, held in shown.items():
        density = np.histogram(held, edges)[0] / max(len(held), 1) / width
        # A step each bin, so that what is drawn is what was counted.
        xs, ys = np.repeat(edges, 2)[1:-1], np.repeat(density, 2)
        series.append(
            {
                "label": LABELS[name],
                "colour": COLUMN_COLOURS[name],
                "mean": rounded(float(held.mean())),
                "points": [[rounded(x), rounded(y)] for x, y in zip(xs, ys, strict=True)],
            }
        )
    return {
        "kind": "histogram",
        "title": "Jacobian singular values before and after",
        "note": f"{diagnosis.title}. Dashed: means.",
        "spec": {
            "xlabel": values_axis(diagnosis),
            "xshort": "JSV",
            "ylabel": "density per decade",
            "xlog": True,
        },
        "series": series,
    }


def _future(held: GroupEstimate) -> bool:
    return len(_predicted(held)) > 1


def _predicted(held: GroupEstimate) -> list[list[float | None]]:
    """Return [epoch, accuracy, low, high] of the estimator's curve beyond what it watched."""
    curve = held.result.curve
    rows = zip(curve.epochs, curve.median, curve.low, curve.high, strict=True)
    return [
        [rounded(float(value)) for value in row]
        for row in rows
        if all(math.isfinite(float(value)) for value in row)
    ]


def _passage(held: GroupEstimate) -> Json | None:
    """Return when the target is reached, with its interval; None where no epoch can be named."""
    passage = held.result.first_passage
    if held.unreachable or passage.is_late or passage.low <= 0:
        return None
    return {
        "label": f"reaches it at {passage.in_words('epoch')}",
        "median": rounded(passage.median),
        "low": rounded(passage.low),
        "high": None if passage.is_open else rounded(passage.high),
    }


def _estimate(held: GroupEstimate, groups: Sequence[Setting]) -> Json:
    metric = held.result.metric
    return {
        "kind": "estimate",
        "title": f"When does {held.label} reach {metric.called(held.target)}?",
        "note": held.sentence(),
        "s": next(k for k, item in enumerate(groups) if item.label == held.label),
        "target": rounded(held.target),
        "aim": f"{metric.written(held.target)}: {held.reference}",
        "sign": metric.sign,
        "curve": _predicted(held),
        "passage": _passage(held),
        "spec": {
            "xlabel": AXES["epoch"],
            "xshort": "epoch",
            "ylabel": test_axis(metric),
            "xlog": True,
        },
    }
