"""How long the gradient is, layer by layer, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from trainscope.records import Diagnosis
from trainscope.report.style import COLOURS, LABELS, legend_above, measured, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 40
MARKERS = {"before": "o", "after": "s", "recalibrated": "^"}


@dataclass
class GradientDisplay:
    """Gradient norms per layer.

    Attributes:
        norms: (layer names, norms) by column, in the network's order.
    """

    norms: Mapping[str, tuple[Sequence[str], Sequence[float]]]
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the norms from a Diagnosis whose gradient was measured."""
        columns = measured(diagnosis.probes["gradient"], "layer_norms")
        return cls({n: (m.arrays["layers"], m.arrays["layer_norms"]) for n, m in columns.items()})

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw one line a column over the layers, on a logarithmic axis."""
        layers = list(dict.fromkeys(name for names, _ in self.norms.values() for name in names))
        width = min(16.0, max(6.4, 0.24 * len(layers)))
        self.ax_ = new_axes(ax, (width, 4.4))
        place = {name: index for index, name in enumerate(layers)}
        for column, (names, norms) in self.norms.items():
            points = [(place[n], v) for n, v in zip(names, norms, strict=True) if v > 0]
            self.ax_.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=COLOURS[column],
                marker=MARKERS[column],
                markersize=4,
                linewidth=1,
                label=LABELS[column],
            )
        self.ax_.set_yscale("log")
        step = max(1, -(-len(layers) // MOST_NAMES))
        self.ax_.set_xticks(range(0, len(layers), step), layers[::step], rotation=90, fontsize=7)
        self.ax_.set_ylabel("gradient norm [nats / weight]")
        self.ax_.set_title("Gradient norm by layer, input to output")
        legend_above(self.ax_)
        tidy(self.ax_)
        self.figure_ = self.ax_.get_figure(root=True)  # type: ignore[assignment]
        return self
