"""One number a setting: final accuracy or TA, against the ratio, the speedup, or side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

from trainscope.comparison.facts import method_of, ratio_of, schedule_of, speedup_of
from trainscope.comparison.groups import Group, group, shared_first_stage
from trainscope.records import Run, RunStatus
from trainscope.report.style import legend, new_axes, styles, tidy
from trainscope.training.schedule import write_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Number = Literal["accuracy", "ta"]
Against = Literal["ratio", "speedup"]
AXES = {"ratio": "ratio", "speedup": "speedup (dense FLOPs / pruned FLOPs)"}

LONGEST_NAME = 28
EDGE = 0.03
"""Where what lies under the axis is marked, as a share of the axes' height."""
APART, SHARE = 0.012, 0.4
"""At one x, neighbours stand this share of the axis apart, and all fill this of a gap at most."""
ROOM = 70
"""Letters that stand side by side under the axis."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting's number.

    Attributes:
        line: What it is joined with: method and LR schedule.
        label: The setting.
        x: Its ratio or speedup; None where that is not known.
        value: The mean over seeds, percent.
        spread: The standard deviation over seeds; None for one run.
        values: Every seed's.
        diverged: Whether a run diverged.
    """

    line: str
    label: str
    x: float | None
    value: float
    spread: float | None
    values: tuple[float, ...]
    diverged: bool = False


def points(
    groups: Sequence[Group], number: Number = "accuracy", against: Against = "ratio"
) -> list[Point]:
    """Return the numbers of all settings that have one.

    Args:
        groups: The settings.
        number: "accuracy" (final, percent), or "ta" over the shortest first LR stage of all.
        against: "ratio" or "speedup".
    """
    shortest = shared_first_stage(groups)
    lines = line_labels(groups)
    read = ratio_of if against == "ratio" else speedup_of
    found = []
    for item, line in zip(groups, lines, strict=True):
        values = item.finals
        if number == "ta":
            values = [
                ta
                for run in item.runs
                if len(run.epochs) > 1 and (ta := run.trainability_accuracy(shortest)) is not None
            ]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            mean = statistics.fmean(values)
            x = read(item.first)
            lost = any(run.status is RunStatus.DIVERGED for run in item.runs)
            found.append(Point(line, item.label, x, mean, spread, tuple(values), lost))
    return found


def floor(points: Sequence[Point]) -> float | None:
    """Return the lowest value that the axis is to show; None for all of them.

    A setting with a diverged run may lie tens of points under the others, which would then look
    alike: it does not set the axis, and is marked at its edge.
    """
    known = [point for point in points if not point.diverged]
    low = min((min(p.value - (p.spread or 0.0), *p.values) for p in known), default=-math.inf)
    return low if any(point.value < low for point in points) else None


def line_labels(groups: Sequence[Group]) -> list[str]:
    """Name the line that joins settings across ratios: the method and the LR schedule."""
    methods = {method_of(item.first) for item in groups}
    kinds = {str(item.first.kind) for item in groups}
    totals = {(item.lr, item.epochs) for item in groups}
    twice = {lr for lr, _ in totals if sum(one == lr for one, _ in totals) > 1}
    labels = []
    for item in groups:
        schedule = schedule_of(item.first)
        words = [str(item.first.kind)] if len(kinds) > 1 else []
        words += [method_of(item.first) or "method unknown"] if len(methods) > 1 else []
        lr = item.lr
        text = "LR ?" if lr is None or schedule is None else f"LR {write_lr(lr)}"
        words.append(text + (f", {item.epochs} epochs" if lr in twice else ""))
        labels.append(" · ".join(words))
    return labels


@dataclass
class SettingDisplay:
    """Final accuracy or TA of every setting.

    With two ratios (or speedups) or more it is drawn against them, a line a method and schedule;
    else the settings stand side by side.

    Attributes:
        points: The numbers.
        number: "accuracy" or "ta".
        against: "ratio" or "speedup".
        order: All settings that are compared, where a figure draws some of them: a setting's place
            there is its colour in every figure. A line has its first setting's.
    """

    points: Sequence[Point]
    number: Number = "accuracy"
    against: Against = "ratio"
    order: Sequence[str] = ()
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_runs(
        cls, runs: Iterable[Run], *, number: Number = "accuracy", against: Against = "ratio"
    ) -> Self:
        """Group runs by setting and take their numbers."""
        return cls.from_groups(group(runs), number=number, against=against)

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[Group],
        *,
        number: Number = "accuracy",
        against: Against = "ratio",
        order: Sequence[str] = (),
    ) -> Self:
        """Take the numbers of settings."""
        return cls(points(groups, number, against), number, against, order)

    @property
    def sweeps(self) -> bool:
        """Return whether there are two places or more to draw against."""
        return len({point.x for point in self.points if point.x is not None}) > 1

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw means with the standard deviation over seeds, and every seed as a small dot.

        What diverged far below the others is an arrow at the edge, with its value.
        """
        self.ax_ = new_axes(ax)
        if self.sweeps:
            self._plot_sweep(self.ax_)
        else:
            self._plot_side_by_side(self.ax_)
        name = "final test accuracy [%]" if self.number == "accuracy" else "TA [%]"
        self.ax_.set_ylabel(name)
        title = "Final accuracy" if self.number == "accuracy" else "Trainability accuracy"
        self.ax_.set_title(title)
        tidy(self.ax_)
        self.figure_ = self.ax_.get_figure(root=True)  # type: ignore[assignment]
        return self

    def _plot_sweep(self, ax: Axes) -> None:
        lines: dict[str, list[Point]] = {}
        for point in self.points:
            if point.x is not None:
                lines.setdefault(point.line, []).append(point)
        places_of = _apart(list(lines.values()))
        drawn = styles((held[0].label for held in lines.values()), self.order)
        for (name, held), style in zip(lines.items(), drawn, strict=True):
            held = sorted(held, key=lambda point: point.x or 0.0)
            places = [places_of[id(point)] for point in held]
            ax.errorbar(
                places,
                [point.value for point in held],
                [point.spread or 0.0 for point in held],
                marker="o",
                markersize=4,
                capsize=3,
                linewidth=1.4,
                label=name,
                **style,
            )
            self._mark_outside(ax, list(zip(places, held, strict=True)), style["color"])
        ax.set_xlabel(AXES[self.against])
        legend(ax)

    def _plot_side_by_side(self, ax: Axes) -> None:
        drawn = styles((point.label for point in self.points), self.order)
        for index, (point, style) in enumerate(zip(self.points, drawn, strict=True)):
            colour = style["color"]
            ax.errorbar(
                [index],
                [point.value],
                [point.spread or 0.0],
                marker="o",
                markersize=7,
                capsize=4,
                color=colour,
            )
            ax.plot([index + 0.15] * len(point.values), point.values, ".", color=colour, alpha=0.6)
            self._mark_outside(ax, [(index, point)], colour)
        names = [
            name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
            for name in (point.label for point in self.points)
        ]
        ax.set_xticks(range(len(names)), names, fontsize=8)
        if sum(map(len, names)) > ROOM:
            ax.tick_params(axis="x", rotation=60)

    def _mark_outside(self, ax: Axes, places: Sequence[tuple[float, Point]], colour: str) -> None:
        """Mark the points that the axis leaves out, each by an arrow at the edge and its value."""
        low = floor(self.points)
        if low is None:
            return
        high = max(max(p.value + (p.spread or 0.0), *p.values) for p in self.points)
        room = 0.12 * ((high - low) or 1.0)
        ax.set_ylim(low - room, high + room / 2)
        edge = ax.get_xaxis_transform()
        for x, point in places:
            if point.value < low:
                ax.plot([x], [EDGE], "v", color=colour, transform=edge)
                ax.annotate(
                    f"{point.value:.1f} %, diverged",
                    (x, EDGE),
                    (6, 0),
                    xycoords=edge,
                    textcoords="offset points",
                    fontsize=8,
                    va="center",
                )


def _apart(lines: Sequence[Sequence[Point]]) -> dict[int, float]:
    """Return where every point stands: sideways by a little where several lines share its x.

    Points at one place would hide each other.
    """
    xs = sorted({point.x or 0.0 for held in lines for point in held})
    gap = min((after - before for before, after in pairwise(xs)), default=0.0)
    step = min(APART * (xs[-1] - xs[0]), SHARE * gap / len(lines)) if xs else 0.0
    sharing = {x: [k for k, held in enumerate(lines) if any(p.x == x for p in held)] for x in xs}
    places = {}
    for k, held in enumerate(lines):
        for point in held:
            x = point.x or 0.0
            among = sharing[x]
            places[id(point)] = x + step * (among.index(k) - (len(among) - 1) / 2)
    return places
