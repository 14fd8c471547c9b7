"""Files that appear whole or not at all, and folders that go again when nothing came into them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainscope.errors import RecordError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import fcntl
except ImportError:  # Windows
    LOCKS = False
else:
    LOCKS = True

Written = IO[bytes]
"""What `replacing` lends."""

MADE = "Made by trainscope"
"""Stands in every picture and page of ours, so that no other is ever written over."""
ELSEWHERE = "write elsewhere"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit on sizes


_BEGINNING, _END = 4096, 2**17
"""Bytes in which a mark is looked for."""


@contextmanager
def replacing(path: Path, *, make: bool = True, over: str | None = None) -> Iterator[Written]:
    """Lend a file to write; on leaving, it takes the place of `path` in one step.

    The bytes are on the disk before the name changes, so that a crash at any moment leaves the old
    file or the new one. When the block raises, the old file stays, and nothing is left behind. What
    a killed process left is written over by the next that writes the same file. A link stays a
    link; a device or a pipe is written to as it is.

    Args:
        path: The file.
        make: Make the folders that are missing.
        over: The mark that a file which is there must have to be replaced, see `refuse_others`.

    Raises:
        RecordError: The file cannot be written, or one is there that is another program's; one
            sentence that starts with its path.
    """
    if over is not None:
        refuse_others(path, over)
    with refusing(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with _Handle(os.open(target, os.O_WRONLY)).buffered() as file:  # a folder says no here
                yield file
            return
        with folder(target.parent) if make else nullcontext():
            part, handle = _part_of(target)
            try:
                with handle.buffered() as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    if LOCKS:  # under the lock, or the next writer empties it
                        os.replace(part, target)
                if not LOCKS:  # this system renames no open file
                    os.replace(part, target)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
        with suppress(OSError):  # not every file system can sync a folder
            _sync(target.parent)


def write_text(path: Path, text: str, *, over: str | None = None) -> None:
    """Write a text file in one step; half of a surrogate pair becomes its escape.

    Args:
        path: The file.
        text: What it holds from now on.
        over: The mark that a file which is there must have to be replaced, see `refuse_others`.

    Raises:
        RecordError: The file cannot be written, or one is there that nobody may replace.
    """
    with replacing(path, over=over) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def refuse_others(path: Path, mark: str = MADE) -> None:
    """Refuse to write over a file that is not ours: one that has content and not our mark.

    Args:
        path: The file; where there is none, or a device or a pipe, there is nothing to refuse.
        mark: Words that stand near the beginning of ours; in a PDF they may stand near the end.

    Raises:
        RecordError: The file is another program's, or cannot be looked at.
    """
    with refusing(path):
        if not path.is_file():
            return
        with path.open("rb") as file:
            seen = file.read(_BEGINNING)
            if seen.startswith(b"%PDF"):
                file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
                seen += file.read()
    if seen and mark.encode() not in seen:
        raise RecordError(
            f"{path} is there already and trainscope did not write it, so it is not replaced: give "
            "another name, or move it away"
        )


@contextmanager
def folder(path: Path, instead: str = ELSEWHERE) -> Iterator[Path]:
    """Make a folder where it is missing; when the block raises and left it empty, it goes again.

    Args:
        path: The folder.
        instead: What a person can do where it cannot be made.

    Raises:
        RecordError: It cannot be made, or a file is in its place.
    """
    made: list[Path] = []
    try:
        with refusing(path, instead):
            _make(path, made)
        yield path
    except BaseException:
        for each in reversed(made):
            with suppress(OSError):  # it is not empty
                each.rmdir()
        raise


@contextmanager
def refusing(path: Path, instead: str = ELSEWHERE) -> Iterator[None]:
    """Say in a sentence why the system will not write a file or a folder.

    Args:
        path: What is written.
        instead: What a person can do.

    Raises:
        RecordError: It will not.
    """
    try:
        if "\0" in str(path):
            raise OSError(errno.EINVAL, "its name holds a NUL character")
        yield
    except OSError as error:
        advice = f"make room there, or {instead}" if error.errno in FULL else instead
        raise RecordError(
            f"{path} cannot be written: {error.strerror or error}; {advice}"
        ) from error


def try_folder(folder: Path) -> None:
    """Find out whether a folder can be written; one that is not there is made and removed again.

    Raises:
        RecordError: It cannot.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with refusing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        finally:
            for each in made:  # from the inside out; what another process uses by now stays
                with suppress(OSError):
                    each.rmdir()


def lock(file: IO[bytes] | int, *, wait: bool) -> None:
    """Keep other processes that lock a file waiting; one that is killed lets go by itself.

    Args:
        file: Open. Nothing is done on a system without such locks.
        wait: Wait for another process, rather than raise.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file system has no locks.
    """
    if LOCKS:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep out other processes that are about the same file or folder; a killed one lets go.

    Where the system or the file system has no locks, the block runs without.

    Args:
        path: A file or folder that is there; it is not changed.
    """
    if not LOCKS:
        yield
        return
    handle = os.open(path, os.O_RDONLY | _CLOSED)
    try:
        with suppress(OSError):  # a file system without locks
            lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _make(path: Path, made: list[Path]) -> None:
    """Make a folder and those above it, and list those that were not there."""
    missing, each = [], path
    while not each.exists() and each != each.parent:
        missing.append(each)
        each = each.parent
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:  # another process was faster
            continue
        made.append(each)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of this folder")


class _Handle(io.FileIO):
    """A file that keeps the system's reason for taking no bytes: torch and others hide it."""

    reason: OSError | None = None

    def __init__(self, handle: int) -> None:
        super().__init__(handle, "wb")

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.reason = error
            raise

    @contextmanager
    def buffered(self) -> Iterator[Written]:
        """Lend it buffered, and close it; any error after the system's becomes the system's."""
        file = io.BufferedWriter(self)
        try:
            yield file
            file.close()
        except Exception as error:
            if self.reason is not None and error is not self.reason:
                raise self.reason from error
            raise
        finally:
            with suppress(OSError):  # what could not be written cannot be flushed either
                file.close()


def _part_of(target: Path) -> tuple[Path, _Handle]:
    """Open the temporary file of a target, which no other process writes to.

    Its name tells the target, so that the next writer finds what a killed one left and no other
    file is ever taken for that. A second writer at the same time gets a name of its own.
    """
    key = hashlib.sha256(target.name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    start = f".{target.name[:40]}."
    part = target.with_name(f"{start}{key}.part")
    handle = _own(part)
    if handle is None:
        part = target.with_name(f"{start}{secrets.token_hex(6)}.part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSED, 0o666)
    return part, _Handle(handle)


def _own(part: Path) -> int | None:
    """Return a handle of a new or left-over file under a lock, None where another is at work."""
    if not LOCKS:
        return None
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | _CLOSED, 0o666)
    except OSError:
        if part.is_symlink() or part.exists():  # not ours
            return None
        raise
    try:
        lock(handle, wait=False)
        found = os.fstat(handle)
        # Between opening and locking, the other writer may have given it its final name.
        if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.lstat(part)):
            os.ftruncate(handle, 0)
            return handle
    except OSError:  # locked, moved, or a file system without locks
        pass
    os.close(handle)
    return None


_CLOSED = getattr(os, "O_CLOEXEC", 0)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
