"""Every figure of a comparison, as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from trainscope.comparison.comparison import MOST_ESTIMATES, Comparison
from trainscope.comparison.settings import Setting
from trainscope.records import Metric, files
from trainscope.records.metric import ACCURACY
from trainscope.report.along_display import AlongDisplay
from trainscope.report.convergence_display import ConvergenceDisplay
from trainscope.report.layout import Display
from trainscope.report.learning_curve_display import LearningCurveDisplay
from trainscope.report.pictures import picture, save
from trainscope.report.series import X, Y, along, by_metric, curve, measured_along
from trainscope.report.setting_display import SettingDisplay
from trainscope.report.setting_points import Against, Number

FORMATS = ("svg", "png")
MOST_LINES = 14
"""More lines than this cannot be told apart; the settings that end best are drawn."""
MOST_POINTS = 40
"""So many settings stand side by side."""
CURVES: tuple[tuple[str, Y, X], ...] = (
    ("{metric}", "metric", "epoch"),
    ("{metric}_lr_time", "metric", "lr_time"),
    ("loss", "loss", "epoch"),
    ("loss_lr_time", "loss", "lr_time"),
)
SETTINGS: tuple[tuple[str, Number, Against], ...] = (
    ("ta", "ta", "ratio"),
    ("final_ratio", "final", "ratio"),
    ("final_speedup", "final", "speedup"),
)


class Drawing(NamedTuple):
    """A figure of a comparison.

    Attributes:
        name: The file's name without its ending.
        display: What draws it.
        note: What it leaves out, for its foot; empty where it leaves out nothing.
    """

    name: str
    display: Display
    note: str = ""


def displays(comparison: Comparison) -> Iterator[Drawing]:
    """Yield every figure that the comparison has numbers for.

    A setting has the same colour in all of them, and on the page.
    """
    order = [item.label for item in comparison.groups]
    several = by_metric(comparison.groups)
    for metric, own in several:
        yield from _of_metric(own, order, metric, len(several) > 1)
    groups = comparison.groups
    for probe, scalar in measured_along(groups):
        held, note = _best([item for item in groups if along(item, probe, scalar)], MOST_LINES)
        if held:
            display = AlongDisplay.from_groups(held, probe=probe, scalar=scalar, order=order)
            yield Drawing(f"along_{scalar}", display, note)
    # Of a schedule to be stretched there is no passage ahead that could be drawn.
    drawn = [each for each in comparison.estimates[:MOST_ESTIMATES] if not each.stretched]
    for place, found in enumerate(drawn, 1):
        places = order.index(found.label), order.index(found.reference)
        future = ConvergenceDisplay.from_estimate(found.result, found.small, found.large, places)
        yield Drawing(f"estimate_{place}", future)
    for diagnosis in comparison.diagnoses:
        yield from _diagnosis_displays(diagnosis, len(comparison.diagnoses) > 1)


def _of_metric(
    groups: Sequence[Setting], order: Sequence[str], metric: Metric, several: bool
) -> Iterator[Drawing]:
    """Yield the figures of the settings that are told by one metric."""
    word = "accuracy" if metric == ACCURACY else "test_" + re.sub(r"\W+", "_", metric.name.lower())
    tail = f"_{word}" if several else ""
    for form, y, x in CURVES:
        name = form.format(metric=word) if y == "metric" else form + tail
        held, note = _best([item for item in groups if curve(item, y, x)], MOST_LINES)
        curves = LearningCurveDisplay.from_groups(held, x=x, y=y, order=order)
        if any(len(one.x) > 1 for one in curves.curves):
            yield Drawing(name, curves, note)
    for name, number, against in SETTINGS:
        shown = SettingDisplay.from_groups(groups, number=number, against=against, order=order)
        if shown.points and (shown.sweeps or against == "ratio"):
            lines = {point.line for point in shown.points}
            most = MOST_POINTS if not shown.sweeps else MOST_LINES
            if shown.sweeps and len(lines) <= MOST_LINES:
                most = len(groups)
            labels = {point.label for point in shown.points}
            held, note = _best([item for item in groups if item.label in labels], most)
            kept = {item.label for item in held}
            points = [point for point in shown.points if point.label in kept]
            yield Drawing(name + tail, replace(shown, points=points), note)


def _best(groups: Sequence[Setting], most: int) -> tuple[list[Setting], str]:
    """Return the settings that end best, in their order, and what a reader must know of it."""
    if len(groups) <= most:
        return list(groups), ""
    ordered = sorted(range(len(groups)), key=lambda k: -groups[k].quality)
    kept = [groups[k] for k in sorted(ordered[:most])]
    return kept, f"{most} of {len(groups)} settings shown: those that end best"


def _diagnosis_displays(diagnosis: Any, several: bool) -> Iterator[Drawing]:
    from trainscope.report.singular_values_display import SingularValuesDisplay
    from trainscope.report.style import measured

    columns = diagnosis.probes.get("jacobian")
    if columns is not None and measured(columns, "singular_values"):
        action = diagnosis.action
        done = "dense" if action is None else f"{action.criterion}_{action.ratio}"
        tail = f"_{done}" if several else ""
        display = SingularValuesDisplay.from_diagnosis(diagnosis)
        yield Drawing(f"singular_values{tail}", display)


def write_comparison_figures(
    comparison: Comparison,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    *,
    titles: bool = True,
) -> list[Path]:
    """Write every figure in every format; return the paths.

    Args:
        comparison: What to draw.
        folder: Made where it is missing; earlier figures of the same names are replaced.
        formats: Of `trainscope.report.pictures.KINDS`.
        titles: Whether they have titles; those in papers have captions.

    Raises:
        RecordError: The folder cannot be written to, or has a file of such a name that trainscope
            did not write; then nothing is written.
    """
    paths = []
    drawings = list(displays(comparison))
    for name, _, _ in drawings:
        for form in formats:
            files.refuse_others(folder / f"{name}.{form}")
    with files.folder(folder):
        for name, display, note in drawings:
            figure = picture(display, title=None if titles else "", note=note)
            for form in formats:
                paths.append(folder / f"{name}.{form}")
                save(figure, paths[-1])
                figure.set_layout_engine("none")  # the next format has the same places
    return paths
