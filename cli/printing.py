"""Printing: text from files is text and nothing else, on any terminal, pipe, file and encoding."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from trainscope.errors import TrainscopeError
from trainscope.records.text import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SPELLED = {
    "→": "->",
    "×": "x",
    "±": "+/-",
    "–": "-",
    "…": "...",
    "•": "*",
    "λ": "lambda",
    "²": "^2",
    "≤": "<=",
    "≥": ">=",
    "·": "*",
    "−": "-",
    "’": "'",
    "“": '"',
    "”": '"',
    "°": "deg",
}
"""How letters of ours are written where an encoding lacks them."""

WIDE = 140
"""Columns of what goes to a pipe or a file, which is not 80 columns wide."""


class OutputError(TrainscopeError):
    """What a command prints cannot be written, as on a full disk."""


def say(text: str = "") -> None:
    """Print text on stdout, line by line.

    Raises:
        OutputError: The system does not take it.
    """
    with _written():
        sys.stdout.write(_plain_lines(text) + "\n")


def remark(text: str) -> None:
    """Print a line on stderr; where that is impossible, nobody is there to read it."""
    Unfailing(sys.stderr).write(plain(text) + "\n")


def say_json(text: str) -> None:
    """Print a JSON text on stdout, with escapes for what the encoding of stdout lacks.

    Raises:
        OutputError: The system does not take it.
    """
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    with _written():
        sys.stdout.write(text + "\n")


def show(*what: RenderableType, wide: int | None = WIDE) -> None:
    """Print tables and text on stdout.

    Args:
        what: What rich can draw.
        wide: Its columns where stdout is no terminal; None lets lines be as long as they are.

    Raises:
        OutputError: The system does not take it.
    """
    with _written():
        found = console(sys.stdout)
        if wide is not None and not found.is_terminal:
            found = console(sys.stdout, width=wide)
        for each in what:
            found.print(each, soft_wrap=wide is None)


def _plain_lines(text: str) -> str:
    return "\n".join(plain(line) for line in text.split("\n"))


def progress_console() -> Console:
    """Return a console on stderr, which never fails: no training ends for a line about it."""
    return console(cast("TextIO", Unfailing(sys.stderr)))


def console(stream: TextIO, *, width: int | None = None) -> Console:
    """Return a console that takes text as it is: no markup, no emoji codes, no control characters.

    Args:
        stream: Where it prints.
        width: Its columns; by default the terminal's.
    """
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(_plain_lines(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Any:
            if isinstance(renderable, Text):
                text = _plain_lines(renderable.plain)
                if text != renderable.plain:
                    renderable = Text(text, renderable.style)
            return super().render(renderable, options)

        def on_broken_pipe(self) -> None:
            raise  # it is called where a BrokenPipeError was caught

    return Plain(file=stream, width=width, highlight=False, markup=False, emoji=False)


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let stdout and stderr take every letter: those that their encoding lacks are spelled."""
    codecs.register_error("trainscope", _spelled)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the command began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    before = []
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a stream of another kind, or closed
            before.append((stream, stream.errors))
            stream.reconfigure(errors="trainscope")  # type: ignore[union-attr]
    try:
        yield
    finally:
        for stream, errors in before:
            with suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors=errors)  # type: ignore[union-attr]


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(SPELLED.get(letter, "?") for letter in lost), error.end


@contextmanager
def _written() -> Iterator[None]:
    """Write through to the system, and say in a sentence why it does not take it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"what is printed cannot be written: {error.strerror or error}; send it elsewhere"
        ) from error


class Unfailing:
    """A stream whose writing never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):  # full, gone, or closed
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
