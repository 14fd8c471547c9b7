"""Where in a TOML file each value stands, which Python's own reader does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trainscope.errors import StudyError, TrainscopeError

Path = tuple[str | int, ...]
"""Keys and places in lists, from the outermost to the value: ("action", 0, "ratio")."""
_KEY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_BARE = re.compile(r"[^,\]}\n#]+")


def lines_of(text: str) -> dict[Path, int]:
    """Return the line of every key and every item of a list, counted from 1.

    Args:
        text: TOML that `tomllib` reads.
    """
    return _Scanner(text).scan()


class At:
    """Says of an error where in the study's file it is.

    Args:
        file: The file's name; None for a study that no file describes.
        lines: The line of each value, as `lines_of` returns them.
    """

    def __init__(self, file: str | None = None, lines: Mapping[Path, int] | None = None) -> None:
        self.file, self.lines = file, lines or {}

    @contextmanager
    def __call__(self, path: Path) -> Iterator[None]:
        """Add the line of a value, or of its field at fault, to the errors of the block."""
        try:
            yield
        except TrainscopeError as error:
            raise self.moved(error, (*path, *error.field)) from error

    def moved(self, error: TrainscopeError, path: Path) -> StudyError:
        """Return an error that says the line of a value, whatever it said before."""
        bare = error.bare if isinstance(error, StudyError) else str(error)
        return StudyError(f"{self._line(path)}{bare}", bare)

    def _line(self, path: Path) -> str:
        if self.file is None:
            return ""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return f"{self.file}: " if line is None else f"{self.file}, line {line}: "


class _Scanner:
    """Goes through a text that is known to be TOML."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.ends = [found.start() for found in re.finditer("\n", text)]
        self.found: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        """Go through the whole text."""
        table: Path = ()
        self._skip()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()
        return self.found

    def _header(self) -> Path:
        listed = self.text.startswith("[[", self.at)
        line = self._line()
        self.at += 2 if listed else 1
        keys = self._keys()
        self.at += 2 if listed else 1
        path = self._inside(keys[:-1])
        path = (*path, keys[-1])
        self.found.setdefault(path, line)
        if listed:
            self.tables[path] = self.tables.get(path, -1) + 1
            path = (*path, self.tables[path])
            self.found[path] = line
        elif path in self.tables:
            path = (*path, self.tables[path])
        return path

    def _inside(self, keys: list[str]) -> Path:
        """Return the path of a table, in the last of those of a list."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self.tables:
                path = (*path, self.tables[path])
        return path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.found.setdefault(path, line)
        self.at += 1  # the sign
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        self.found.setdefault(path, self._line())
        first = self.text[self.at]
        if first == "[":
            self._items(path)
        elif first == "{":
            self._inline(path)
        else:
            string = _STRING.match(self.text, self.at)
            found = string or _BARE.match(self.text, self.at)
            assert found is not None
            self.at = found.end()

    def _items(self, path: Path) -> None:
        self.at += 1
        self._skip()
        place = 0
        while self.text[self.at] != "]":
            self._value((*path, place))
            place += 1
            self._comma()
        self.at += 1

    def _inline(self, path: Path) -> None:
        self.at += 1
        self._skip()
        while self.text[self.at] != "}":
            self._pair(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        self._skip()
        if self.text[self.at] == ",":
            self.at += 1
            self._skip()

    def _keys(self) -> list[str]:
        keys = []
        while True:
            found = _KEY.match(self.text, self.at)
            assert found is not None
            self.at = found.end()
            keys.append(_plain(found[1]))
            if self.text[self.at : self.at + 1] != ".":
                return keys
            self.at += 1

    def _skip(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _line(self) -> int:
        return bisect_left(self.ends, self.at) + 1


def _plain(key: str) -> str:
    """Return a key without its quotes."""
    if key[0] in "\"'":
        read: str = tomllib.loads(f"key = {key}")["key"]
        return read
    return key
