"""The kinds of picture that a plot is written as."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainscope.errors import RecordError
from trainscope.records.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "svg", "pdf")


def kind_of_picture(path: Path) -> str:
    """Return the kind of picture that a file's name ends in.

    Raises:
        RecordError: It ends in none of KINDS.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise RecordError(f"{path} is no picture: end its name in .png, .svg or .pdf")
    return kind


def save_figure(figure: Figure, file: Any, kind: str, dpi: int) -> None:
    """Write a figure whose texts are text: names from files are no formulas and no commands.

    Args:
        figure: What to write.
        file: Open for binary writing.
        kind: One of KINDS.
        dpi: Dots an inch.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        held = text.get_text()
        if not held.startswith("$\\mathdefault"):  # matplotlib's own powers of ten
            text.set_parse_math(False)
            text.set_text("\n".join(plain(line) for line in held.split("\n")))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters of another script
        figure.savefig(file, format=kind, dpi=dpi)
