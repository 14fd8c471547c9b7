"""Where the title, the legend and the axes of a figure stand: decided here, for every Display.

From the top: title, legend, axes. The legend never stands on data. The title is kept off the
legend by matplotlib's own layout, so that one that is set later stands right as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.legend import Legend
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

WIDTH, HEIGHT = 7.2, 4.4
"""Inches of a figure that needs no more, and no less."""
TITLE, LABEL, TICK, SMALL = 11.0, 9.5, 8.5, 8.0
"""Points of the title, of names of axes, of numbers on them, and of everything else."""
MOST_COLUMNS = 4
GAP = 0.4
"""Lines of text between the axes and the legend."""
INK = "#555555"


class Display(Protocol):
    """What draws one figure."""

    @property
    def title(self) -> str:
        """What the figure shows, in words."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a figure with this alone, inches."""

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Display:
        """Draw, with a title of one's own, or without any where it is empty."""


def new_axes(ax: Axes | None, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Axes:
    """Return the axes given, or those of a new pyplot figure, in the look of all figures."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    tidy(ax)
    return ax


def tidy(ax: Axes) -> None:
    """Leave the two axes that carry numbers, and a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=TICK)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(LABEL)


def whole_epochs(ax: Axes) -> None:
    """Write whole numbers along an axis of epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def finish(ax: Axes, title: str, *, below: Sequence[Axes] = ()) -> Figure:
    """Give axes on which all is drawn their title and legend, and let every text fit.

    Args:
        ax: What the title and the legend stand over.
        title: Empty for none.
        below: Further axes of the same Display.

    Returns:
        Their figure; one that holds nothing else grows with the lines of its legend.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    for each in (ax, *below):
        _few_decades(each.xaxis)
        _few_decades(each.yaxis)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # the axes get their width
    ax.set_title(title, fontsize=TITLE, parse_math=False)
    for text in (ax.title, (below or (ax,))[-1].xaxis.label):
        _fit(text, ax, figure)
    legend = _legend(ax)
    if legend is not None:
        _hold_off_title(ax, legend)
        if set(figure.axes) <= {ax, *below}:
            line = 1.6 * SMALL / 72
            figure.set_figheight(
                figure.get_figheight() + max(0.0, _height(legend) / figure.dpi - line)
            )
    return figure


def apart(places: Sequence[tuple[float, float]], least: float) -> list[int]:
    """Return which places, in pixels and in order, can be marked without piling up.

    Args:
        places: Where the marks would stand.
        least: Pixels that each keeps from the one before it.
    """
    kept: list[int] = []
    for k, place in enumerate(places):
        if not kept or math.dist(place, places[kept[-1]]) >= least:
            kept.append(k)
    return kept


def spaced(groups: Sequence[tuple[int, str]], rows: int, least: float) -> list[tuple[int, str]]:
    """Return the labels of rows that can stand below one another, the larger groups first.

    Args:
        groups: The first row of each group, in order, and its name.
        rows: All rows.
        least: Rows from one label to the next.
    """
    ends = [start for start, _ in groups[1:]] + [rows]
    sizes = [end - start for (start, _), end in zip(groups, ends, strict=True)]
    kept: list[int] = []
    for k in sorted(range(len(groups)), key=lambda k: (-sizes[k], k)):
        if all(abs(groups[k][0] - groups[other][0]) >= least for other in kept):
            kept.append(k)
    return [groups[k] for k in sorted(kept)]


def fold(text: str, letters: int) -> list[str]:
    """Return a text in lines: broken between the parts of a setting's name where that is possible.

    Args:
        text: The text; parts of a name have " · " between them.
        letters: Of a line, at most.
    """
    lines: list[str] = []
    for part in text.replace("LR ", "LR\u00a0").split(" · "):
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and len(joined) <= letters:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(part, letters)
    return [line.replace("\u00a0", " ") for line in lines] or [text]


def _few_decades(axis: Axis) -> None:
    """Write numbers also between the powers of ten where a logarithmic axis spans few of them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if axis.get_scale() != "log":
        return
    low, high = axis.get_view_interval()
    if 0 < low < high < 50 * low:
        axis.set_major_locator(
            LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(4, steps=[1, 2, 5, 10])
        )
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _legend(ax: Axes) -> Legend | None:
    """Name the lines above the axes, in as many columns as these are wide."""
    handles, names = ax.get_legend_handles_labels()
    if not names:
        return None
    room = ax.get_window_extent().width
    columns = min(len(names), MOST_COLUMNS)
    legend = _in_columns(ax, handles, names, columns)
    while columns > 1 and _width(legend) > room:
        columns -= 1
        legend = _in_columns(ax, handles, names, columns)
    if _width(legend) > room:
        text = max(label.get_window_extent().width for label in legend.get_texts())
        free = room - (_width(legend) - text)
        legend = _in_columns(ax, handles, [_folded(name, text, free, names) for name in names], 1)
    return legend


def _fit(text: Text, ax: Axes, figure: Figure) -> None:
    """Fold a text that is wider than the figure around the axes' middle."""
    box = ax.get_window_extent()
    middle = (box.x0 + box.x1) / 2
    free = 2 * min(middle, figure.bbox.width - middle) * 0.98
    wide = text.get_window_extent().width
    if wide > free:
        text.set_text(_folded(text.get_text(), wide, free, (text.get_text(),)))


def _folded(text: str, wide: float, free: float, among: Sequence[str]) -> str:
    """Break a text into lines that fit.

    Args:
        text: The text.
        wide: Pixels of the widest of the texts `among` which it stands.
        free: Pixels that there are.
        among: These texts.
    """
    letters = int(0.95 * max(map(len, among)) * free / wide)
    return "\n".join(fold(text, max(letters, 8)))


def _in_columns(ax: Axes, handles: Sequence[Artist], names: Sequence[str], columns: int) -> Legend:
    rows = -(-len(names) // columns)
    legend = ax.legend(
        handles,
        names,
        ncols=-(-len(names) // rows),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
        fontsize=SMALL,
        borderaxespad=GAP,
        borderpad=0.2,
        columnspacing=1.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def _hold_off_title(ax: Axes, legend: Legend) -> None:
    """Put an empty child on the axes where the legend is: titles keep off children."""
    spacer = ax.inset_axes((0.0, 1.0, 1.0, 0.0), zorder=-1)
    spacer.set_axis_off()
    spacer.set_in_layout(False)
    spacer.set_axes_locator(_over(legend))


def _over(legend: Legend) -> Callable[..., Bbox]:
    def place(child: Axes, renderer: RendererBase | None) -> Bbox:
        figure: Figure | SubFigure | None = child.get_figure(root=False)
        assert figure is not None
        return legend.get_window_extent(renderer).transformed(figure.transSubfigure.inverted())

    return place


def _width(legend: Legend) -> float:
    return float(legend.get_window_extent().width)


def _height(legend: Legend) -> float:
    return float(legend.get_window_extent().height)
