"""The kinds of picture that a plot is written as."""

from __future__ import annotations

from pathlib import Path

from trainscope.errors import RecordError

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
