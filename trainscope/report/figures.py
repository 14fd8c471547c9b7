"""The figures of one Diagnosis, as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainscope.records import Diagnosis
from trainscope.report.density_display import DensityDisplay
from trainscope.report.gradient_display import GradientDisplay
from trainscope.report.retraining_display import RetrainingDisplay
from trainscope.report.singular_values_display import SingularValuesDisplay
from trainscope.report.style import measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160
FIGURES: dict[str, tuple[str, str, Any]] = {
    "retraining": ("trainability_accuracy", "epoch_accuracies", RetrainingDisplay),
    "gradient_norms": ("gradient", "layer_norms", GradientDisplay),
    "singular_values": ("jacobian", "singular_values", SingularValuesDisplay),
    "spectral_density": ("curvature", "density_x", DensityDisplay),
}
"""File name: the probe and the array that a figure needs, and its Display."""


def diagnosis_figures(diagnosis: Diagnosis) -> Iterator[tuple[str, Figure]]:
    """Yield the figure of every probe that was measured, and the name of its file."""
    for name, (probe, array, display) in FIGURES.items():
        columns = diagnosis.probes.get(probe)
        if columns is None or not measured(columns, array):
            continue
        yield f"{name}.png", _figure(display.from_diagnosis(diagnosis), diagnosis)


def _figure(display: Any, diagnosis: Diagnosis) -> Figure:
    """Draw without pyplot, which keeps every figure and wants a screen."""
    from matplotlib.figure import Figure

    size = (10.0, 4.8) if isinstance(display, GradientDisplay) else (7.2, 4.4)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    display.plot(ax)
    ax.set_title(f"{ax.get_title()}: {diagnosis.title}", fontsize=10)
    return figure
