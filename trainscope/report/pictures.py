"""Figures as files: drawn without a screen, and written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainscope.errors import RecordError
from trainscope.records.files import MADE, refuse_others, replacing
from trainscope.records.text import plain
from trainscope.report.layout import INK, SMALL, Display

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKED = {"png": "Software", "svg": "Creator", "pdf": "Creator"}
"""Where each kind of picture says what wrote it."""
KINDS = tuple(MARKED)
DPI = 160


def kind_of_picture(path: Path) -> str:
    """Return the kind of picture that a file's name ends in; ask before the work begins.

    Raises:
        RecordError: It ends in none of KINDS, or a file is there that trainscope did not write.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise RecordError(f"{path} is no picture: end its name in .png, .svg or .pdf")
    refuse_others(path)
    return kind


def picture(display: Display, *, title: str | None = None, note: str = "") -> Figure:
    """Draw without pyplot, which keeps every figure and wants a screen.

    Args:
        display: What to draw, at its own size.
        title: By default the Display's own; empty for none, as papers have captions.
        note: What stands at the foot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=display.size, layout="constrained")
    with _any_letters():
        display.plot(figure.subplots(), title=title)
    if note:
        figure.supxlabel(note, fontsize=SMALL, color=INK)
    return figure


def write(figure: Figure, file: IO[bytes], kind: str = "png") -> None:
    """Write a figure with our mark; names from files are no formulas and no commands in it."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        held = text.get_text()
        if not held.startswith("$\\mathdefault"):  # matplotlib's own powers of ten
            text.set_parse_math(False)
            text.set_text("\n".join(plain(line) for line in held.split("\n")))
    with _any_letters():
        figure.savefig(file, format=kind, dpi=DPI, metadata={MARKED[kind]: MADE})


def save(figure: Figure, path: Path) -> None:
    """Write a figure in one step, of the kind that its name ends in.

    Raises:
        RecordError: The file cannot be written, the name ends in no kind of picture, or a file is
            there that trainscope did not write.
    """
    kind = kind_of_picture(path)
    with replacing(path, over=MADE) as file:
        write(figure, file, kind)


def save_alone(display: Display, path: Path, *, title: str | None = None) -> None:
    """Draw into a file of its own.

    Raises:
        RecordError: The file cannot be written, its folder is missing, it has no known ending, or
            one is there that trainscope did not write.
    """
    kind = kind_of_picture(path)
    with replacing(path, make=False, over=MADE) as file:
        write(picture(display, title=title), file, kind)


@contextmanager
def _any_letters() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
