"""The figures of one Diagnosis, as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainscope.records import Diagnosis
from trainscope.report.density_display import DensityDisplay
from trainscope.report.gradient_display import GradientDisplay
from trainscope.report.layout import Display
from trainscope.report.pictures import picture
from trainscope.report.retraining_display import RetrainingDisplay
from trainscope.report.singular_values_display import SingularValuesDisplay
from trainscope.report.style import measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, tuple[str, str, Any]] = {
    "retraining": ("trainability_accuracy", "lrs", RetrainingDisplay),
    "gradient_norms": ("gradient", "layer_norms", GradientDisplay),
    "singular_values": ("jacobian", "singular_values", SingularValuesDisplay),
    "spectral_density": ("curvature", "density_x", DensityDisplay),
}
"""File name: the probe and the array that a figure needs, and its Display."""


def diagnosis_figures(diagnosis: Diagnosis, *, titles: bool = True) -> Iterator[tuple[str, Figure]]:
    """Yield the figure of every probe that was measured, and the name of its file.

    Args:
        diagnosis: What was measured.
        titles: Whether they have titles; those in papers have captions.
    """
    for name, (probe, array, kind) in FIGURES.items():
        columns = diagnosis.probes.get(probe)
        if columns is None or not measured(columns, array):
            continue
        display: Display = kind.from_diagnosis(diagnosis)
        title = f"{display.title}: {diagnosis.title}" if titles else ""
        yield f"{name}.png", picture(display, title=title)
