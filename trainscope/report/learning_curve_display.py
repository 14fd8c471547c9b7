"""The test's metric or the loss of retraining, setting by setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trainscope.comparison.settings import Setting, group
from trainscope.comparison.traps.convergence import decayed_too_early
from trainscope.records import Metric, Run
from trainscope.records.metric import ACCURACY
from trainscope.report.layout import HEIGHT, WIDTH, apart, finish, new_axes, whole_epochs
from trainscope.report.series import (
    AXES,
    Curve,
    X,
    Y,
    curve,
    epoch_axis,
    far,
    loss_axis,
    one_metric,
    span,
    test_axis,
)
from trainscope.report.style import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_UNSEEN = 4
"""Curves beyond the axes that are told of."""
APART = 9.0
"""Points from one mark of a curve to the next."""


@dataclass
class LearningCurveDisplay:
    """Learning curves, LR drops marked: Wang et al. (2023), Fig. 2 and 3.

    Attributes:
        curves: One curve a setting: the mean over seeds, with the smallest and the largest.
        x: "epoch", or "lr_time", over which curves of different LRs lie over one another.
        y: "metric" or "loss": the test's, or the training loss.
        early: The epoch of a first LR drop that came too early, by setting; ringed.
        order: All settings that are compared, where a figure draws some of them: a setting's place
            there is its colour in every figure.
        epochs: What the axis of epochs is called.
        metric: What the test measured, the same in all curves.
    """

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    curves: Sequence[Curve]
    x: X = "epoch"
    y: Y = "metric"
    early: Mapping[str, int] = field(default_factory=dict)
    order: Sequence[str] = ()
    epochs: str = AXES["epoch"]
    metric: Metric = ACCURACY
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_runs(cls, runs: Iterable[Run], *, x: X = "epoch", y: Y = "metric") -> Self:
        """Group runs by setting and take their curves."""
        return cls.from_groups(group(runs), x=x, y=y)

    @classmethod
    def from_groups(
        cls,
        groups: Iterable[Setting],
        *,
        x: X = "epoch",
        y: Y = "metric",
        order: Sequence[str] = (),
    ) -> Self:
        """Take the curves of settings; those without recorded epochs have none.

        Raises:
            RecordError: They are of several metrics.
        """
        held = list(groups)
        metric = one_metric(held)
        found = [curve(item, y, x) for item in held]
        traps = [decayed_too_early(item) for item in held] if y == "metric" else []
        early = {trap.label: trap.epoch for trap in traps if trap and trap.epoch is not None}
        return cls(
            [one for one in found if one is not None], x, y, early, order, epoch_axis(held), metric
        )

    @property
    def title(self) -> str:
        """What the figure shows."""
        return f"Test {self.metric.name}" if self.y == "metric" else "Training loss"

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw a line a setting, a band from the lowest to the highest seed, and the LR drops."""
        self.ax_ = new_axes(ax, self.size)
        drawn = styles((held.label for held in self.curves), self.order)
        for held, style in zip(self.curves, drawn, strict=True):
            self.ax_.plot(held.x, held.mean, linewidth=1.5, label=held.label, **style)
            if held.low != held.high:
                self.ax_.fill_between(
                    held.x, held.low, held.high, color=style["color"], alpha=0.15, linewidth=0
                )
        axis = test_axis if self.y == "metric" else loss_axis
        self.ax_.set_ylabel(axis(self.metric))
        self._limit()
        self._tell_unseen(drawn)
        told = self._mark(drawn)
        name = self.epochs if self.x == "epoch" else AXES[self.x]
        self.ax_.set_xlabel(f"{name} ({told})" if told else name)
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self

    def _limit(self) -> None:
        """Scale the axes; a diverged setting sets none of them."""
        if self.x == "lr_time":
            self.ax_.set_xscale("log")
        else:
            whole_epochs(self.ax_)
        if self.y == "loss" and all(min(held.mean) > 0 for held in self.curves):
            self.ax_.set_yscale("log")
        elif self.y == "metric" and self.curves:
            best = self.metric.best(v for held in self.curves for v in (*held.high, *held.low))
            assert best is not None
            near = [held for held in self.curves if not far(self.metric, held.mean[-1], best)]
            ends = [held.mean[-1] for held in near] or [best]
            if self.x == "lr_time" and near:
                # A diverged run's LR may be thousands of times the others'.
                self.ax_.set_xlim(*_widened([x for held in near for x in held.x]))
            self.ax_.set_ylim(*span(self.metric, ends, best))

    def _tell_unseen(self, drawn: Sequence[Mapping[str, Any]]) -> None:
        """Say at the edge where curves end that lie beyond the axes, in their colours."""
        if self.y != "metric":
            return
        (left, right), (low, high) = self.ax_.get_xlim(), self.ax_.get_ylim()
        unseen = [
            (held, style)
            for held, style in zip(self.curves, drawn, strict=True)
            if not any(
                left <= x <= right and low <= y <= high
                for x, y in zip(held.x, held.mean, strict=True)
            )
        ]
        for k, (held, style) in enumerate(unseen[:MOST_UNSEEN]):
            end, height = held.mean[-1], 0.02 + 0.05 * k
            where = "below" if end < low else "above" if end > high else "beside"
            self.ax_.text(
                0.99,
                0.98 - height if end > high else height,
                f"ends {where}, at {self.metric.written(end)}",
                color=style["color"],
                fontsize="small",
                ha="right",
                va="top" if end > high else "bottom",
                transform=self.ax_.transAxes,
            )

    def _mark(self, drawn: Sequence[Mapping[str, Any]]) -> str:
        """Mark the LR drops of every curve where they stand apart; return what marks mean.

        Under small LRs the sum of LR hardly grows, so that later drops would pile up there.
        """
        figure = self.ax_.get_figure(root=True)
        assert figure is not None
        least = APART * figure.dpi / 72
        marked, left_out, ringed = False, False, False
        for held, style in zip(self.curves, drawn, strict=True):
            places = [(held.x[k], held.mean[k]) for k in held.drops]
            if not places:
                continue
            kept = apart([tuple(at) for at in self.ax_.transData.transform(places)], least)
            marked, left_out = True, left_out or len(kept) < len(places)
            for k in kept:
                self.ax_.plot(*places[k], "v", color=style["color"], markersize=5)
            if held.label in self.early:
                ringed = True
                ring = {"color": style["color"], "markersize": 11, "fillstyle": "none"}
                self.ax_.plot(*places[0], "o", **ring)
        if not marked:
            return ""
        told = f"triangles: {'first ' if left_out else ''}LR drops"
        return told + ("; ringed: too early" if ringed else "")


def _widened(places: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis with some room at both."""
    known = [place for place in places if place > 0] or [1.0]
    low, high = min(known), max(known)
    room = (high / low) ** 0.05 if high > low else 2.0
    return low / room, high * room
