"""Every figure of a comparison, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.report.along_display import AlongDisplay
from trainscope.report.convergence_display import ConvergenceDisplay
from trainscope.report.learning_curve_display import LearningCurveDisplay
from trainscope.report.series import X, Y, measured_along
from trainscope.report.setting_display import Against, Number, SettingDisplay
from trainscope.studies.comparison import MOST_ESTIMATES, Comparison

DPI = 160
FORMATS = ("svg", "png")
MOST_LINES = 14
"""More lines than this cannot be told apart; the settings that end highest are drawn."""
CURVES: tuple[tuple[str, Y, X], ...] = (
    ("accuracy", "accuracy", "epoch"),
    ("accuracy_lr_time", "accuracy", "lr_time"),
    ("loss", "loss", "epoch"),
    ("loss_lr_time", "loss", "lr_time"),
)
SETTINGS: tuple[tuple[str, Number, Against], ...] = (
    ("ta", "ta", "ratio"),
    ("final_ratio", "accuracy", "ratio"),
    ("final_speedup", "accuracy", "speedup"),
)


def displays(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    """Yield the name and the Display of every figure that the comparison has numbers for."""
    groups = list(comparison.groups)
    if len(groups) > MOST_LINES:
        best = sorted(groups, key=lambda item: -(item.mean or 0.0))[:MOST_LINES]
        groups = [item for item in groups if item in best]
    for name, y, x in CURVES:
        curves = LearningCurveDisplay.from_groups(groups, x=x, y=y)
        if any(len(held.x) > 1 for held in curves.curves):
            yield name, curves
    for name, number, against in SETTINGS:
        shown = SettingDisplay.from_groups(groups, number=number, against=against)
        if shown.points and (shown.sweeps or against == "ratio"):
            yield name, shown
    for probe, scalar in measured_along(groups):
        along = AlongDisplay.from_groups(groups, probe=probe, scalar=scalar)
        if along.curves:
            yield f"along_{scalar}", along
    for place, held in enumerate(comparison.estimates[:MOST_ESTIMATES], 1):
        display = ConvergenceDisplay.from_estimate(held.result, held.small, held.large)
        yield f"estimate_{place}", display
    for diagnosis in comparison.diagnoses:
        yield from _diagnosis_displays(diagnosis, len(comparison.diagnoses) > 1)


def _diagnosis_displays(diagnosis: Any, several: bool) -> Iterator[tuple[str, Any]]:
    from trainscope.report.singular_values_display import SingularValuesDisplay
    from trainscope.report.style import measured

    columns = diagnosis.probes.get("jacobian")
    if columns is not None and measured(columns, "singular_values"):
        action = diagnosis.action
        tail = f"_{action.criterion}_{action.ratio}" if several else ""
        yield f"singular_values{tail}", SingularValuesDisplay.from_diagnosis(diagnosis)


def write_comparison_figures(
    comparison: Comparison, folder: Path, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write every figure in every format; return the paths.

    Args:
        comparison: What to draw.
        folder: Made where it is missing; files of the same names are replaced.
        formats: As matplotlib names them.

    Raises:
        RecordError: The folder cannot be written to.
    """
    from matplotlib.figure import Figure

    from trainscope.records.files import replacing

    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, display in displays(comparison):
            figure = Figure(figsize=(7.2, 4.4), layout="constrained")
            display.plot(figure.subplots())
            for form in formats:
                path = folder / f"{name}.{form}"
                with replacing(path) as part:
                    figure.savefig(part, format=form, dpi=DPI)
                paths.append(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordError(f"figures cannot be written to {folder}: {reason}") from error
    return paths
