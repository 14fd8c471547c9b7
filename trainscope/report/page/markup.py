"""Small pieces of HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trainscope.records.text import escape

COLOURS = 7
DIGITS = 5
DASHES = ("none", "7 4", "2 3", "9 3 2 3")

__all__ = ["cell", "escape", "figure", "listed", "prose", "rounded", "swatch", "table"]
_WHOLE = re.compile(
    r"(?:LR )?\d[\d.]*e-?\d+|LR \d[\d.]*\d|\d[\d.]*(?: ± [\d.]+)? %|p = \d[\d.]*\d"
    r"|\d[\d.]* [kMG]\b|2/λmax|--\w[\w-]*"
)


def prose(text: str) -> str:
    """Return a sentence in which no number is broken at the end of a line."""
    return _WHOLE.sub(lambda found: f'<span class="nb">{found[0]}</span>', escape(text))


def swatch(index: int) -> str:
    """Return the piece of line that a setting is drawn with."""
    dash = DASHES[index // COLOURS % len(DASHES)]
    return (
        '<svg class="swatch" viewBox="0 0 22 10" aria-hidden="true"><line x1="1" x2="21" y1="5" '
        f'y2="5" stroke="var(--s{index % COLOURS})" stroke-width="3" stroke-dasharray="{dash}"/>'
        "</svg>"
    )


def listed(items: Iterable[str], kind: str = "more") -> str:
    """Return a list of sentences; nothing for none."""
    rows = "".join(f"<li>{prose(item)}</li>" for item in items)
    return f'<ul class="{kind}">{rows}</ul>' if rows else ""


def cell(text: str, sort: float | int | None = None, *, kind: str = "") -> str:
    """Return a table cell of text, with the number that it is sorted by."""
    key = "" if sort is None else f' data-v="{sort!r}"'
    shown = f' class="{kind}"' if kind else ""
    return f"<td{shown}{key}>{escape(text)}</td>"


def table(
    heads: Sequence[tuple[str, bool]], rows: Iterable[str], label: str, *, tall: bool = False
) -> str:
    """Return a sortable table.

    Args:
        heads: Each column's name, and whether it holds numbers. A column without a name cannot be
            sorted.
        rows: The rows, as HTML.
        label: What the table holds, for those who cannot see it.
        tall: Scroll within a limited height.
    """
    first = next((name for name, _ in heads if name), None)  # stays in sight when scrolled
    names = "".join(
        f'<th scope="col"{" class=n" if number else " class=s" if name == first else ""}>'
        + (f'<button type="button">{escape(name)}</button>' if name else "")
        + "</th>"
        for name, number in heads
    )
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0" role="region" '
        f'aria-label="{escape(label)}">'
        f'<table class="sortable"><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(index: int, title: str, note: str, *, narrow: bool = False, high: bool = False) -> str:
    """Return the place of a plot; a narrow one takes half the place of others, a high one more."""
    kind = "figure" + " narrow" * narrow + " high" * high
    return (
        f'<figure class="{kind}" data-plot="{index}"><figcaption>{escape(title)}'
        f'<span>{prose(note)}</span></figcaption><div class="legend"></div>'
        '<div class="canvas"></div></figure>'
    )


def rounded(value: float | None) -> float | None:
    """Return a number for the script, with as many digits as a plot can show."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
