"""How the Jacobian's singular values are spread, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from trainscope.records import Diagnosis
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.style import COLOURS, LABELS, drawn_from

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 60
FLOOR = 1e-12
"""Singular values under this share of the largest are drawn at it."""


def values_axis(diagnosis: Diagnosis) -> str:
    """Return what the values are of: derivatives by the input, or by the embedded tokens."""
    tokens = "inputs" in diagnosis.probes["jacobian"].before.notes
    return f"singular value of d logits / d {'embedded tokens' if tokens else 'input'}"


@dataclass
class SingularValuesDisplay:
    """Densities of log10 of all singular values of d logits / d input.

    Attributes:
        values: Every sample's singular values in one array, by column.
        axis: What they are of.
    """

    title: ClassVar[str] = "Jacobian singular values"
    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    values: Mapping[str, np.ndarray]
    axis: str = "singular value of d logits / d input"
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the values from a Diagnosis whose Jacobian was measured.

        Raises:
            RecordError: It was not; the message says why.
        """
        columns = drawn_from(diagnosis, "jacobian", "singular_values")
        return cls(
            {
                name: np.concatenate(
                    [np.asarray(row, float) for row in m.arrays["singular_values"]]
                )
                for name, m in columns.items()
            },
            values_axis(diagnosis),
        )

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw one density a column, with its mean, on one logarithmic axis."""
        self.ax_ = new_axes(ax, self.size)
        top = max(float(values.max(initial=0.0)) for values in self.values.values()) or 1.0
        shown = {name: np.maximum(v, top * FLOOR) for name, v in self.values.items()}
        low = min(float(values.min()) for values in shown.values())
        edges = np.geomspace(low / 1.1, top * 1.1, BINS + 1)
        for name, values in shown.items():
            share, _ = np.histogram(values, edges)
            density = share / max(len(values), 1) / np.diff(np.log10(edges))
            colour = COLOURS[name]
            self.ax_.stairs(density, edges, color=colour, linewidth=1.6, label=LABELS[name])
            self.ax_.stairs(density, edges, color=colour, fill=True, alpha=0.12)
            self.ax_.axvline(values.mean(), color=colour, linewidth=1, linestyle="--")
        self.ax_.set_xscale("log")
        self.ax_.set_xlabel(f"{self.axis} (dashed: mean)")
        self.ax_.set_ylabel("density per decade")
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
