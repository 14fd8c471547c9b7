"""A watched retraining, where it is headed, and when it reaches the target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trainscope.convergence import Estimate, LearningCurve
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.series import test_axis
from trainscope.report.style import series_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WATCHED, REFERENCE = 1, 0
"""The places of the two among settings, and so their colours, where they are all there is."""
TARGET = "#444444"
LIKELY = 0.5
"""A chance below which no passage is drawn: it would be read as the epoch at which that happens."""


@dataclass
class ConvergenceDisplay:
    """The values watched, the prediction with its band, the reference and the target.

    Attributes:
        estimate: What was estimated.
        small: The run that was watched.
        reference: The run at a larger LR, where there is one.
        places: The places of the two among the settings that are compared, which are their colours
            in every figure.
    """

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    estimate: Estimate
    small: LearningCurve
    reference: LearningCurve | None = None
    places: tuple[int, int] = (WATCHED, REFERENCE)
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_estimate(
        cls,
        estimate: Estimate,
        small: LearningCurve,
        reference: LearningCurve | None = None,
        places: tuple[int, int] = (WATCHED, REFERENCE),
    ) -> Self:
        """Keep an estimate and the curves that it was made from."""
        return cls(estimate, small, reference, places)

    @property
    def title(self) -> str:
        """The target, and what became of it."""
        target = self.estimate.metric.called(self.estimate.target, 2)
        return f"Target {target}: {self.estimate.status}"

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw the curves over log epochs, and the first passage on the target, if it is likely."""
        self.ax_ = new_axes(ax, self.size)
        watched, reference = map(series_style, self.places)
        predicted = watched["color"]
        if self.reference is not None:
            self._curve(self.reference, reference, "reference")
        self._curve(self.small, watched, "watched")
        band, level = self.estimate.curve, self.estimate.level
        if band.epochs:
            label = f"predicted, {100 * level:g} % band"
            self.ax_.plot(band.epochs, band.median, "--", color=predicted, lw=1.4, label=label)
            self.ax_.fill_between(
                band.epochs, band.low, band.high, color=predicted, alpha=0.15, linewidth=0
            )
        target, metric = self.estimate.target, self.estimate.metric
        aim = f"target, {metric.written(target, 2)}"
        likely = self.estimate.reachable >= LIKELY
        passage = self.estimate.first_passage
        if not likely:
            aim += f", reached with probability {self.estimate.reachable:.2f}"
        elif math.isfinite(passage.horizon) and passage.is_late:
            aim += f", {passage.missed(self.estimate.per)}"
        self.ax_.axhline(target, color=TARGET, lw=0.8, ls=":", label=aim)
        if likely:
            self._passage()
        self.ax_.set_xscale("log")
        self.ax_.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        self.ax_.set_xlabel(f"{self.estimate.per} of retraining")
        self.ax_.set_ylabel(test_axis(metric))
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self

    def _curve(self, curve: LearningCurve, style: Mapping[str, Any], name: str) -> None:
        """Draw one run's records after epoch 0."""
        keep = curve.epochs > 0
        if not keep.any():
            return
        peak = float(curve.lr.max())  # records have an LR
        rate = f"{'LR' if (curve.lr == peak).all() else 'peak LR'} {peak:.3g}"
        self.ax_.plot(
            curve.epochs[keep],
            curve.accuracy[keep],
            linewidth=1.3,
            marker="o",
            markersize=2.5,
            label=f"{name}, {rate}",
            **style,
        )

    def _passage(self) -> None:
        """Draw the first passage and its interval; an arrow where the interval has no end."""
        passage, target = self.estimate.first_passage, self.estimate.target
        if not math.isfinite(passage.low) or passage.low <= 0 or passage.is_late:
            return
        end = passage.high
        if passage.is_open:
            end = max(self.estimate.curve.epochs, default=passage.low)
            self.ax_.plot([end], [target], ">", color=TARGET, markersize=6, clip_on=False)
        self.ax_.plot([passage.low, end], [target, target], color=TARGET, linewidth=3, alpha=0.7)
        label = f"first passage, {passage.in_words(self.estimate.per)}"
        self.ax_.plot([passage.median], [target], "o", color=TARGET, markersize=6, label=label)
