"""One column against the end of retraining, a point a candidate, as Feng et al. (2024) draw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from trainscope.records.metric import HIGHER
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.style import SERIES
from trainscope.studies.columns import Candidates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_STRATA = len(SERIES)


@dataclass
class CandidateDisplay:
    """Candidates by one column and by where they end; the first in the column is a star.

    Where its direction is known and all candidates are of one stratum, those that end better than
    the star are of another colour: anomalies.

    Attributes:
        candidates: What is known of them.
        column: The one to draw.
        target: The name of the end.
        better: Which direction of the column is better; None where nobody says.
        wanted: Which direction of the end is.
    """

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    candidates: Candidates
    column: str
    target: str = "final"
    better: str | None = None
    wanted: str = HIGHER
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_candidates(
        cls,
        candidates: Candidates,
        column: str,
        *,
        target: str = "final",
        better: str | None = None,
        wanted: str = HIGHER,
    ) -> Self:
        """Keep the candidates that have a number in the column."""
        held = candidates.of(np.flatnonzero(np.isfinite(candidates.known[column])))
        return cls(held, column, target, better, wanted)

    @property
    def title(self) -> str:
        """What the figure shows."""
        return f"{self.column} before retraining, {self.target} after it"

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw a point a candidate."""
        self.ax_ = ax = new_axes(ax, self.size)
        x, y = self.candidates.known[self.column], self.candidates.target
        present = np.unique(self.candidates.strata)
        style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.7}
        if len(present) == 1 and self.better is not None and len(x):
            self._anomalies(ax, style)
        elif len(present) <= MOST_STRATA:
            for k, stratum in enumerate(present):
                held = self.candidates.strata == stratum
                name = self.candidates.strata_names[stratum] or None
                ax.plot(x[held], y[held], color=SERIES[k], label=name, **style)
        else:
            ax.plot(x, y, color=SERIES[0], label=f"{len(present)} strata", **style)
        if len(x) and x.min() > 0 and x.max() > 100 * x.min():
            ax.set_xscale("log")
        ax.set_xlabel(f"{self.column}, before retraining")
        ax.set_ylabel(f"{self.target}, after it")
        self.figure_ = finish(ax, self.title if title is None else title)
        return self

    def _anomalies(self, ax: Axes, style: dict[str, object]) -> None:
        x, y = self.candidates.known[self.column], self.candidates.target
        word = "highest" if self.better == HIGHER else "lowest"
        star = int(np.argmax(x) if self.better == HIGHER else np.argmin(x))
        above = y > y[star] if self.wanted == HIGHER else y < y[star]
        share = f"{100 * above.mean():.0f} %"
        for held, color, label in (
            (above, SERIES[1], f"end better than it, {share}"),
            (~above, SERIES[0], "do not"),
        ):
            ax.plot(x[held], y[held], color=color, label=label, **style)  # type: ignore[arg-type]
        ax.axhline(y[star], color="#444444", linewidth=0.8, linestyle=":")
        ax.plot(
            [x[star]],
            [y[star]],
            linestyle="",
            marker="*",
            markersize=14,
            color="#222222",
            label=f"{word} {self.column}",
        )
