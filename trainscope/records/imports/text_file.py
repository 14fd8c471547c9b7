"""Text that any tool on any system may have written, read line by line in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.binary import is_saved

MOST_BYTES = 128 * 2**20
"""A log larger than this holds steps by the million: an epoch is a line or two."""
MOST_LINE = 2**20
"""Characters of a line."""
_HEAD = 64 * 1024
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DRAWN = dict.fromkeys(range(0x2500, 0x2580), "-") | dict.fromkeys(map(ord, "│┃║┆┇┊┋"), "|")
"""The lines of boxes that tables are drawn with on terminals."""
STRANGE = 0.1
"""Share of characters that are none, above which a file is no text."""


def check_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return how a file begins.

    Raises:
        RecordError: It is missing, empty, too large, or no regular file.
    """
    try:
        if path.exists() and not path.is_file():
            raise RecordError(f"{path} is no file, so no log can be read from it")
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(_HEAD)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"no log can be read from {path}: {reason}") from error
    if not begin:
        raise RecordError(
            f"{path} is empty: give a table with a header and rows, or a log with its lines"
        )
    if size > most:
        raise RecordError(
            f"{path} has {size / 2**20:.0f} MiB, and a log of at most {most / 2**20:.0f} MiB is "
            "read: keep the lines of the epochs"
        )
    return begin


def lines(path: Path, *, cut: bool = False) -> Iterator[str]:
    """Yield the lines of a text file, ended by any system's line ends, without them.

    UTF-8 and UTF-16 are read, with a byte order mark or without; bytes that are no text are
    replaced, as long as they are few. A bare carriage return ends a line: so progress bars write.

    Args:
        path: The file.
        cut: Whether a line that is too long is cut; otherwise it is refused.

    Raises:
        RecordError: The file cannot be read, or is no text.
    """
    encoding = _encoding(check_file(path), path)
    try:
        with path.open(encoding=encoding, errors="replace") as file:
            while line := file.readline(MOST_LINE):
                long = len(line) == MOST_LINE and line[-1] != "\n"
                if long and not cut:
                    raise RecordError(
                        f"{path} is no text log: it has a line of more than {MOST_LINE} characters"
                    )
                line = line.removesuffix("\n")
                yield line if line.isascii() else line.translate(_DRAWN)
                while long:
                    rest = file.readline(MOST_LINE)
                    long = len(rest) == MOST_LINE and rest[-1] != "\n"
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise RecordError(f"no log can be read from {path}: {reason}") from error


def whole(path: Path, most: int) -> str:
    """Return all of a text file.

    Raises:
        RecordError: It cannot be read, is no text, or has more bytes than `most`.
    """
    encoding = _encoding(check_file(path, most), path)
    try:
        return path.read_text(encoding=encoding, errors="replace")
    except (OSError, UnicodeError) as error:
        raise RecordError(f"no log can be read from {path}: it is no text") from error


def beginning(path: Path) -> list[str]:
    """Return the first lines of a text file that are not empty, [] where it is no text."""
    begin = check_file(path)
    try:
        text = begin.decode(_encoding(begin, path), errors="replace")
    except (RecordError, UnicodeError):
        return []
    drawn = text if text.isascii() else text.translate(_DRAWN)
    return [line for line in drawn.splitlines()[:200] if line.strip()]


def _encoding(begin: bytes, path: Path) -> str:
    """Return the encoding of a text by how it begins."""
    for mark, encoding in _ENCODINGS:
        if begin.startswith(mark):
            return encoding
    if begin.count(0):
        # Text in a Latin script has a zero in every second byte of UTF-16.
        even, odd = begin[0::2].count(0), begin[1::2].count(0)
        if max(even, odd) > 0.4 * len(begin) and min(even, odd) < 0.1 * len(begin):
            return "utf-16-be" if even > odd else "utf-16-le"
        raise _no_text(begin, path)
    text = begin.decode("utf-8", errors="replace")
    strange = sum(
        char == "\ufffd" or (char < " " and char not in "\t\r\n\x1b\x08") for char in text
    )
    if strange > STRANGE * len(text):
        raise _no_text(begin, path)
    return "utf-8"


def _no_text(begin: bytes, path: Path) -> RecordError:
    try:
        saved = is_saved(begin, path)
    except RecordError as error:
        return error
    if saved:
        return RecordError(
            f"{path} is what torch, pickle or NumPy saved: make a Run of it with `trainscope "
            "import`"
        )
    return RecordError(f"{path} is no text log, nor a log of another known format")
