"""One number a setting: its final value or TA, against the ratio, the speedup, or side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from trainscope.comparison.settings import Setting, group
from trainscope.records import Metric, Run
from trainscope.records.metric import ACCURACY
from trainscope.records.trainability import trainability_name
from trainscope.report.layout import HEIGHT, SMALL, WIDTH, finish, fold, new_axes
from trainscope.report.series import one_metric, ta_axis, test_axis
from trainscope.report.setting_points import AXES, Against, Number, Point, floor, points
from trainscope.report.style import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

EDGE, LEVEL = 0.03, 0.055
"""Where what lies under the axis is marked, as a share of the axes; one such text over another."""
APART, SHARE = 0.012, 0.4
"""At one x, neighbours stand this share of the axis apart, and all fill this of a gap at most."""
LETTER = 0.068
"""Inches of a letter, a mean, of the size of the names of settings."""
UPRIGHT, LYING = (11, 3), 38
"""Letters of a line, and lines, of a name under a point; letters of a line beside a row."""
FRAME, NARROWEST = 1.1, 3.0
"""Inches of a figure that are no points; its least width."""


@dataclass
class SettingDisplay:
    """Final test value or trainability of every setting.

    With two ratios (or speedups) or more it is drawn against them, a line a method and schedule;
    else the settings stand side by side.

    Attributes:
        points: The numbers.
        number: "final" or "ta".
        against: "ratio" or "speedup".
        order: All settings that are compared, where a figure draws some of them: a setting's place
            there is its colour in every figure. A line has its first setting's.
        metric: What the numbers are values of.
    """

    points: Sequence[Point]
    number: Number = "final"
    against: Against = "ratio"
    order: Sequence[str] = ()
    metric: Metric = ACCURACY
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_runs(
        cls, runs: Iterable[Run], *, number: Number = "final", against: Against = "ratio"
    ) -> Self:
        """Group runs by setting and take their numbers."""
        return cls.from_groups(group(runs), number=number, against=against)

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[Setting],
        *,
        number: Number = "final",
        against: Against = "ratio",
        order: Sequence[str] = (),
    ) -> Self:
        """Take the numbers of settings.

        Raises:
            RecordError: They are of several metrics.
        """
        metric = one_metric(groups)
        return cls(points(groups, number, against), number, against, order, metric)

    @property
    def sweeps(self) -> bool:
        """Return whether there are two places or more to draw against."""
        return len({point.x for point in self.points if point.x is not None}) > 1

    @property
    def title(self) -> str:
        """What the figure shows."""
        if self.number == "final":
            return f"Final {self.metric.name}"
        name = trainability_name(self.metric)
        return f"{name[0].upper()}{name[1:]}"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, inches: as many as the settings need."""
        if self.sweeps:
            return WIDTH, HEIGHT
        if self._fits(WIDTH - FRAME):
            return max(NARROWEST, FRAME + self._slot * len(self.points)), 3.4
        lines = max(len(fold(point.label, LYING)) for point in self.points)
        return WIDTH, FRAME + len(self.points) * (0.1 + 0.14 * lines)

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw means with the standard deviation over seeds, and every seed as a small dot.

        What diverged far below the others is an arrow at the edge, with its value. Settings without
        ratios stand side by side, or, where their names are long, in rows.
        """
        self.ax_ = new_axes(ax, self.size)
        name = test_axis(self.metric).removeprefix("top-1 ")
        name = f"final {name}" if self.number == "final" else ta_axis(self.metric)
        if self.sweeps:
            self._plot_sweep(self.ax_)
        elif self._fits(_inches(self.ax_)):
            self._plot_side_by_side(self.ax_)
        else:
            self._plot_rows(self.ax_)
            self.ax_.set_xlabel(name)
        if not self.ax_.get_xlabel() or self.sweeps:
            self.ax_.set_ylabel(name)
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self

    @property
    def _slot(self) -> float:
        """Inches between points that stand side by side."""
        lines = [line for point in self.points for line in fold(point.label, UPRIGHT[0])]
        return max(0.5, LETTER * max(map(len, lines), default=0) + 0.15)

    def _fits(self, room: float) -> bool:
        """Tell whether the names can stand side by side in so many inches."""
        low = all(len(fold(point.label, UPRIGHT[0])) <= UPRIGHT[1] for point in self.points)
        return low and self._slot * len(self.points) <= room

    def _plot_sweep(self, ax: Axes) -> None:
        lines: dict[str, list[Point]] = {}
        for point in self.points:
            if point.x is not None:
                lines.setdefault(point.line, []).append(point)
        places_of = _apart(list(lines.values()))
        drawn = styles((held[0].label for held in lines.values()), self.order)
        outside: list[tuple[float, Point, str]] = []
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
            outside += [(x, p, style["color"]) for x, p in zip(places, held, strict=True)]
        self._mark_outside(ax, outside)
        ax.set_xlabel(AXES[self.against])

    def _plot_side_by_side(self, ax: Axes) -> None:
        for index, (point, colour) in enumerate(self._coloured()):
            spread = point.spread or 0.0
            ax.errorbar([index], [point.value], [spread], fmt="o", **_dot(colour))
            ax.plot([index + 0.15] * len(point.values), point.values, ".", color=colour, alpha=0.6)
        names = ["\n".join(fold(point.label, UPRIGHT[0])) for point in self.points]
        ax.set_xticks(range(len(names)), names, parse_math=False)
        ax.set_xlim(-0.6, len(names) - 0.4)
        self._mark_outside(ax, [(k, *held) for k, held in enumerate(self._coloured())])

    def _plot_rows(self, ax: Axes) -> None:
        for index, (point, colour) in enumerate(self._coloured()):
            spread = point.spread or 0.0
            ax.errorbar([point.value], [index], xerr=[spread], fmt="o", **_dot(colour))
            ax.plot(point.values, [index + 0.25] * len(point.values), ".", color=colour, alpha=0.6)
        names = ["\n".join(fold(point.label, LYING)) for point in self.points]
        ax.set_yticks(range(len(names)), names, parse_math=False)
        ax.set_ylim(len(names) - 0.4, -0.6)
        limits = self._limits()
        if limits is None:
            return
        ax.set_xlim(*limits)
        for index, (point, colour) in enumerate(self._coloured()):
            if self._outside(point):
                edge, up = ax.get_yaxis_transform(), self.metric.sign > 0
                at = EDGE / 2 if up else 1 - EDGE / 2
                ax.plot([at], [index], "<" if up else ">", color=colour, transform=edge)
                shift, side = (7 if up else -7, 0), "left" if up else "right"
                self._say(ax, point, colour, (at, index), shift, edge, side)

    def _coloured(self) -> list[tuple[Point, str]]:
        drawn = styles((point.label for point in self.points), self.order)
        return [(p, style["color"]) for p, style in zip(self.points, drawn, strict=True)]

    def _outside(self, point: Point) -> bool:
        """Tell whether a point is worse than the worst that the axis shows."""
        worst, sign = floor(self.points, self.metric.sign), self.metric.sign
        return worst is not None and sign * point.value < sign * worst

    def _limits(self) -> tuple[float, float] | None:
        """Return the ends of the axis of values where something is left out beyond it."""
        sign = self.metric.sign
        worst = floor(self.points, sign)
        if worst is None:
            return None
        tops = [sign * p.value + (p.spread or 0.0) for p in self.points]
        high = max(*tops, *(sign * value for p in self.points for value in p.values))
        room = 0.12 * ((high - sign * worst) or 1.0)
        low, high = sorted((worst - sign * room, sign * (high + room / 2)))
        return low, high

    def _mark_outside(self, ax: Axes, places: Sequence[tuple[float, Point, str]]) -> None:
        """Mark the points that the axis leaves out, each by an arrow at the edge and its value.

        Texts that would stand on one another stand above one another.
        """
        limits = self._limits()
        if limits is None:
            return
        up = self.metric.sign > 0
        ax.set_ylim(*limits)
        edge, held = ax.get_xaxis_transform(), ax.get_xlim()
        wide = LETTER * len("10.0 %, diverged") / _inches(ax) * (held[1] - held[0]) * 1.15
        taken: list[list[tuple[float, float]]] = []
        for x, point, colour in sorted(places, key=lambda place: place[0]):
            if not self._outside(point):
                continue
            height = EDGE if up else 1 - EDGE
            ax.plot([x], [height], "v" if up else "^", color=colour, transform=edge)
            side = "left" if x + wide <= held[1] else "right"
            span = (x, x + wide) if side == "left" else (x - wide, x)
            level = next(
                (k for k, row in enumerate(taken) if all(_clear(span, one) for one in row)),
                len(taken),
            )
            if level == len(taken):
                taken.append([])
            taken[level].append(span)
            height += LEVEL * level if up else -LEVEL * level
            at, shift = (x, height), (6 if side == "left" else -6, 0)
            self._say(ax, point, colour, at, shift, edge, side)

    def _say(
        self,
        ax: Axes,
        point: Point,
        colour: str,
        at: tuple[float, float],
        shift: tuple[float, float],
        transform: Transform,
        side: str,
    ) -> None:
        ax.annotate(
            f"{self.metric.written(point.value)}, diverged",
            *(at, shift),
            xycoords=transform,
            textcoords="offset points",
            fontsize=SMALL,
            color=colour,
            ha=side,
            va="center",
        )


def _inches(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return float(ax.get_window_extent().width / figure.dpi)


def _dot(colour: str) -> dict[str, Any]:
    return {"markersize": 7, "capsize": 4, "color": colour}


def _clear(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[1] <= other[0] or other[1] <= one[0]


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
