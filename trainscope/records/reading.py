"""Text that anybody may have written, read in bounded memory."""

from __future__ import annotations

from pathlib import Path

from trainscope.errors import RecordError

MOST_BYTES = 512 * 2**20
"""A record larger than this is none of ours."""


def text_of(path: Path, most: int = MOST_BYTES, *, failed: str | None = None) -> str:
    """Return all of a text file in UTF-8; a pipe or a device is read to the same bound.

    Args:
        path: The file.
        most: Bytes that it may have.
        failed: How the sentence begins where it cannot be read; by default with the path.

    Raises:
        RecordError: It is not there, cannot be read, is no text, or has more bytes.
    """
    start = f"{path} cannot be read" if failed is None else failed
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise RecordError(
                f"{start}: it has more than {most >> 20} MiB, as none of its kind has"
            )
        # Line ends of any system, as in a file that is opened as text.
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, ValueError) as error:  # a name with a NUL character is a ValueError
        why = "it is not text" if isinstance(error, UnicodeDecodeError) else None
        reason = why or getattr(error, "strerror", None) or error
        raise RecordError(f"{start}: {reason}") from error
