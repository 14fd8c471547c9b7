"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; on leaving it takes the place of `path` in one step.

    The bytes are on the disk before the name changes, so that a crash at any moment leaves the old
    file or the new one. When the block raises, the old file stays and nothing is left behind.
    Folders that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp allows the owner alone
        _sync(part, os.O_RDWR)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    with suppress(OSError):  # not every file system can sync a folder
        _sync(path.parent, os.O_RDONLY)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
