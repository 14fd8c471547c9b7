"""One look for every figure: colours safe for colour-blind eyes (Okabe and Ito), thin axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trainscope.records import Columns, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"before": "#0072B2", "after": "#D55E00", "recalibrated": "#009E73"}
LABELS = {
    "before": "before",
    "after": "after",
    "recalibrated": "after, batch norm recalibrated",
}
DASHES = ("-", "--", ":", "-.")
SERIES = ("#0072B2", "#D55E00", "#009E73", "#B8578F", "#C98A00", "#3A9BD1", "#6F6F6F")
"""Colours of settings, in order; after the last one they come again with another dash.

The page's are the same in the light; the last four are darker than Okabe and Ito's, for white.
"""


MOST_INSIDE = 5
"""Entries of a legend that stands on the axes."""
LONGEST_BESIDE, LETTERS, LINE = 30, 13, 0.17
"""Letters of a name beside the axes; letters an inch, and inches a line, of a legend under them."""


def new_axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the axes given, or those of a new pyplot figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def tidy(ax: Axes) -> None:
    """Leave the two axes that carry numbers, and a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)


def legend(ax: Axes) -> None:
    """Name the lines: inside where few leave room, else outside, where no data is covered.

    A figure that has these axes alone grows by the lines of a legend below.
    """
    handles, names = ax.get_legend_handles_labels()
    if len(names) <= MOST_INSIDE:
        ax.legend(frameon=False, fontsize=8, loc="best")
        return
    longest = max(map(len, names))
    if longest <= LONGEST_BESIDE:
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    columns = max(1, int(LETTERS * figure.get_figwidth()) // (longest + 6))
    if len(figure.axes) == 1:
        figure.set_figheight(figure.get_figheight() + LINE * -(-len(names) // columns))
    ax.legend(
        *(handles, names),
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=columns,
    )


def legend_above(ax: Axes) -> None:
    """Name the columns of a Diagnosis in one line between the title and the axes."""
    ax.set_title(ax.get_title(), pad=24)
    ax.legend(
        frameon=False,
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(COLOURS),
        borderaxespad=0.3,
    )


def series_style(index: int) -> dict[str, Any]:
    """Return the colour and the dash of the index-th setting."""
    return {
        "color": SERIES[index % len(SERIES)],
        "linestyle": DASHES[index // len(SERIES) % len(DASHES)],
    }


def styles(labels: Iterable[str], order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the colour and the dash of every setting drawn.

    Args:
        labels: The settings drawn.
        order: All settings, so that one has the same colour in every figure; by default those
            drawn.
    """
    held = list(labels)
    places = {label: place for place, label in enumerate(order or held)}
    return [series_style(places.get(label, place)) for place, label in enumerate(held)]


def measured(columns: Columns, array: str) -> dict[str, Measurement]:
    """Return the columns that have an array, in order."""
    found = {
        "before": columns.before,
        "after": columns.after,
        "recalibrated": columns.recalibrated,
    }
    return {n: m for n, m in found.items() if m is not None and m.arrays.get(array)}
