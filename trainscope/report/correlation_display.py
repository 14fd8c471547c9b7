"""How strongly each column goes with the end of retraining, and how far anything could."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from trainscope.report.layout import SMALL, WIDTH, finish, fold, new_axes
from trainscope.report.style import SERIES
from trainscope.studies.association import LABELS, Name
from trainscope.studies.correlation import TOGETHER, Correlation, Predictor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 24
"""Columns that are drawn, the strongest first."""
_LETTERS = 34
_ROW, _FRAME = 0.3, 1.5
"""Inches of a row of one line, and of what is no row."""


@dataclass
class CorrelationDisplay:
    """A coefficient with its interval for each column, and the ceiling that noise sets.

    Attributes:
        correlation: What was found.
        name: Which coefficient.
    """

    correlation: Correlation
    name: Name = "kendall"
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_correlation(cls, correlation: Correlation, name: Name = "kendall") -> Self:
        """Keep what was found."""
        return cls(correlation, name)

    @property
    def title(self) -> str:
        """What the figure shows."""
        return f"What is known before the end, against {self.correlation.target}"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, inches: a row a column."""
        lines = sum(len(fold(label_of(each), _LETTERS)) for each in self.rows)
        return WIDTH, _FRAME + _ROW * max(lines, 3)

    @property
    def rows(self) -> list[Predictor]:
        """The columns that have a coefficient, all together first."""
        known = [each for each in self.correlation.predictors if self.name in each.coefficients]
        together = self.correlation.together
        return ([] if together is None else [together]) + known[:MOST_ROWS]

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw a row a column, the strongest on top."""
        self.ax_ = ax = new_axes(ax, self.size)
        level = f"{100 * self.correlation.level:g} % interval"
        for place, row in enumerate(self.rows):
            each = row.coefficients[self.name]
            style: dict[str, Any] = {
                "color": SERIES[1 if row is self.correlation.together else 0],
                "zorder": 3,
            }
            if each.low is not None and each.high is not None:
                label = level if place == 0 else None
                ax.plot([each.low, each.high], [place] * 2, linewidth=1.6, label=label, **style)
            ax.plot([each.value], [place], "o", markersize=5, **style)
        self._ceiling(ax)
        ax.axvline(0, color="#444444", linewidth=0.8)
        names = ["\n".join(fold(label_of(row), _LETTERS)) for row in self.rows]
        ax.set_yticks(range(len(names)), names, fontsize=SMALL, parse_math=False)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(-1, 1)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(f"{LABELS[self.name]} with {self.correlation.target}")
        self.figure_ = finish(ax, self.title if title is None else title)
        return self

    def _ceiling(self, ax: Axes) -> None:
        """Draw what another retraining, and a number without noise, would have, on both sides."""
        ceiling = self.correlation.ceiling
        if ceiling is None:
            return
        lines = (
            ("another retraining of the same candidate", ceiling.another, ":"),
            ("a number without noise", ceiling.attainable, "--"),
        )
        for label, found, dash in lines:
            value = found[self.name].value
            for side in (1, -1):
                ax.axvline(
                    side * value,
                    color=SERIES[6],
                    linestyle=dash,
                    linewidth=1.2,
                    label=label if side > 0 else None,
                )


def label_of(row: Predictor) -> str:
    """Return a column's name; all together without the names."""
    return TOGETHER if row.column.startswith(f"{TOGETHER} (") else row.column
