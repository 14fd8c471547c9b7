"""A file of measurements, one a line, that a failing disk or a killed process leaves readable."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainscope.errors import ProbeError
from trainscope.records import Taken

log = logging.getLogger(__name__)

_OURS = b'{"probe": '
"""How every line begins."""


class JsonLines:
    """A file with one JSON object a line, appended to; `read` reads it back.

    A line is written whole or not at all. Where the file was removed meanwhile it is begun again.

    Args:
        path: The file; its folder is made where it is missing.

    Raises:
        ProbeError: The file is there and begins with something else than a measurement.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _refuse_others(self.path)
        self._file: int | None = None

    def __str__(self) -> str:
        return f"the file {self.path}"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: it opens the file anew."""
        return {"path": self.path, "_file": None}

    def write(self, taken: Taken) -> None:
        """Append one line.

        Raises:
            OSError: The file cannot be written; it ends with the line before.
        """
        if self._file is not None and os.fstat(self._file).st_nlink == 0:
            log.warning("%s was removed while it was written to: a new one is begun", self)
            self.close()
        if self._file is None:
            self._file = self._open()
        try:
            _append(self._file, (_line(taken) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            self.close()  # a stale handle stays stale: the next attempt opens the file anew
            raise

    def close(self) -> None:
        """Close the file; another `write` opens it again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = _is_torn(self.path)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if torn:
            _append(file, b"\n")
        return file

    @staticmethod
    def read(path: str | Path) -> list[Taken]:
        """Return what a file holds; a line that was cut short is left out, and logged."""
        found = []
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.append(Taken.from_json(json.loads(line)))
            except (ValueError, LookupError, TypeError):
                log.warning("line %d of %s is no measurement: it is left out", number, path)
        return found


def _refuse_others(path: Path) -> None:
    """Refuse to append to a file of another program; one that cannot be read is told in writing."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            begin = file.read(4096).lstrip()
    except OSError:
        return
    if begin and not _OURS.startswith(begin[: len(_OURS)]):  # the first line may have been torn
        raise ProbeError(
            f"{path} is there already and holds no measurements, so none are appended to it: give "
            "another name, or move it away"
        )


def _is_torn(path: Path) -> bool:
    """Return whether a file ends in the middle of a line, as one of a killed process does."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # it is not there, is empty, or is a pipe
        return False


def _append(file: int, data: bytes) -> None:
    """Append bytes, or leave the file as it was and raise."""
    written = 0
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        if written:  # a full disk takes the first half of a line
            _take_back(file, written)
        raise


def _take_back(file: int, written: int) -> None:
    """Cut off the bytes that were written last, if nobody has written after them."""
    try:
        end = os.lseek(file, 0, os.SEEK_CUR)
        if end == os.fstat(file).st_size:
            os.ftruncate(file, end - written)
    except OSError as error:
        log.debug("half a line stays in the file: %s", error)


def _line(taken: Taken) -> str:
    found = taken.to_json()
    try:
        return json.dumps(found, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):  # a third party's probe may hold anything
        return json.dumps(_plain(found), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: None for numbers that are not finite."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
