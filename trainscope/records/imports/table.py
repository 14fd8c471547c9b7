"""A table as text: a header of names, then a row a line, whatever its separator."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path

from trainscope.errors import RecordError

SEPARATORS = (",", ";", "\t")
"""What a spreadsheet may put between columns; the header tells which."""
_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)
_POINT = re.compile(r"\s*[+-]?\d*\.\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was read.

    Attributes:
        path: Of the file, for messages.
        columns: The names in the header.
        rows: The cells by name. A row that is too short has None; what goes beyond is left out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str | None]]

    def refuse_twice(self, names: Iterable[str]) -> None:
        """Refuse a header with two columns of one name, where that column is needed.

        Args:
            names: The columns that are read; capitals do not count.

        Raises:
            RecordError: One of them is there more than once.
        """
        counts = Counter(name.lower() for name in self.columns)
        for name in names:
            if counts[name.lower()] > 1:
                raise RecordError(
                    f"{self.path} has the column '{name}' {counts[name.lower()]} times: keep one, "
                    "or give the others other names"
                )


def read_table(path: Path) -> Table:
    """Read a table with columns separated by commas, semicolons or tabs.

    The separator is the one that the header has most columns by. Where it is no comma, and no
    number of the table has a decimal point, 0,5 is a half: so spreadsheets write it in many
    languages.

    Raises:
        RecordError: The file cannot be read, or is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = _separator(text)
        file = StringIO(text)
        cells = list(csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not text in UTF-8; save it as that"
        raise RecordError(f"{path} is no CSV file with named columns: {reason}") from error
    cells = [row for row in cells if row]
    if separator != "," and not any(_POINT.fullmatch(cell) for cell in chain(*cells[1:])):
        cells[1:] = [
            [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in row]
            for row in cells[1:]
        ]
    columns = tuple(name.strip() for name in cells[0]) if cells else ()
    rows = [
        {name: row[k] if k < len(row) else None for k, name in enumerate(columns)}
        for row in cells[1:]
    ]
    return Table(path, columns, rows)


def _separator(text: str) -> str:
    """Return the separator that makes the most columns of the header; a comma if none does."""

    def count(separator: str) -> int:
        rows = csv.reader(StringIO(text), delimiter=separator)
        return len(next((row for row in rows if row), ()))

    return max(SEPARATORS, key=count)
