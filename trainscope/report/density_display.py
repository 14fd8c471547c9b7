"""How the Hessian's eigenvalues are spread, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from trainscope.records import Diagnosis
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.style import COLOURS, LABELS, drawn_from, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 8
"""How far below its peak a density is drawn."""


@dataclass
class DensityDisplay:
    """Spectral densities by stochastic Lanczos quadrature.

    Attributes:
        densities: (eigenvalues, density) by column.
        tops: The largest eigenvalue by column, where it was measured.
        unit: Of the eigenvalues.
    """

    title: ClassVar[str] = "Loss curvature"
    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    densities: Mapping[str, tuple[np.ndarray, np.ndarray]]
    tops: Mapping[str, float]
    unit: str = "nats/weight²"
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the densities from a Diagnosis whose curvature was measured.

        Raises:
            RecordError: It was not; the message says why.
        """
        columns = drawn_from(diagnosis, "curvature", "density_x")
        tops = {n: m.get("top_eigenvalue") for n, m in columns.items()}
        return cls(
            {
                name: (np.asarray(m.arrays["density_x"]), np.asarray(m.arrays["density_y"]))
                for name, m in columns.items()
            },
            {name: top for name, top in tops.items() if top is not None},
            unit_of(columns, "top_eigenvalue", "nats/weight²"),
        )

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw one density a column; a dotted line marks the largest eigenvalue."""
        self.ax_ = new_axes(ax, self.size)
        peak = max(float(y.max()) for _, y in self.densities.values())
        for name, (x, y) in self.densities.items():
            self.ax_.plot(x, y, color=COLOURS[name], linewidth=1.4, label=LABELS[name])
            if name in self.tops:
                self.ax_.axvline(self.tops[name], color=COLOURS[name], linestyle=":", linewidth=1)
        self.ax_.set_yscale("log")
        self.ax_.set_ylim(peak * 10.0**-DECADES, peak * 3)
        reach = min(float(np.abs(x).max()) for x, _ in self.densities.values())
        if reach > 0:  # columns can differ by decades: the narrowest one sets the linear part
            self.ax_.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(reach / 5)))
        self.ax_.set_xlabel(f"eigenvalue [{self.unit}] (dotted: largest)")
        self.ax_.set_ylabel("spectral density")
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
