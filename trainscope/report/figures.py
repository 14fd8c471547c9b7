"""The figures of one Diagnosis, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainscope.records import Diagnosis
from trainscope.report.density_display import DensityDisplay
from trainscope.report.gradient_display import GradientDisplay
from trainscope.report.layout import Display
from trainscope.report.pictures import picture, save
from trainscope.report.retraining_display import RetrainingDisplay
from trainscope.report.singular_values_display import SingularValuesDisplay
from trainscope.report.style import measured

FIGURES: dict[str, tuple[str, str, Any]] = {
    "retraining": ("trainability_accuracy", "epoch_accuracies", RetrainingDisplay),
    "gradient_norms": ("gradient", "layer_norms", GradientDisplay),
    "singular_values": ("jacobian", "singular_values", SingularValuesDisplay),
    "spectral_density": ("curvature", "density_x", DensityDisplay),
}
"""File name: the probe and the array that a figure needs, and its Display."""


def write_figures(diagnosis: Diagnosis, folder: Path, *, titles: bool = True) -> list[Path]:
    """Write a PNG for every probe that was measured; return the paths.

    Args:
        diagnosis: What was measured.
        folder: Where the figures go.
        titles: Whether they have titles; those in papers have captions.

    Raises:
        OSError: A file cannot be written.
    """
    paths = []
    told = f"{diagnosis.network.architecture}, {diagnosis.action.meaning}"
    for name, (probe, array, kind) in FIGURES.items():
        columns = diagnosis.probes.get(probe)
        if columns is None or not measured(columns, array):
            continue
        display: Display = kind.from_diagnosis(diagnosis)
        figure = picture(display, title=f"{display.title}: {told}" if titles else "")
        paths.append(folder / f"{name}.png")
        save(figure, paths[-1])
    return paths
