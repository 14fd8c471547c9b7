"""A table as text: a header of names, then a row a line, whatever its separator."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.text_file import lines

SEPARATORS = (",", ";", "\t", "|")
"""What may stand between columns; the header tells which. Else blanks may."""
MOST_ROWS = 150_000
MOST_CELLS = 20_000_000
_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")
_POINT = re.compile(r"\s*[+-]?\d*\.\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)
_SEP = re.compile(r"\s*sep=.?\s*", re.IGNORECASE)
"""What spreadsheets write above the header to name the separator."""
_NUMBER = re.compile(r"\s*[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?\s*%?\s*|nan|[+-]?inf|", re.I)


@dataclass(frozen=True, slots=True)
class LogTable:
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
        refuse_twice(self.path, self.columns, names)


def refuse_twice(path: Path, columns: Iterable[str], names: Iterable[str]) -> None:
    """Refuse columns that are needed and there more than once; capitals do not count.

    Raises:
        RecordError: One of them is there more than once.
    """
    counts = Counter(name.lower() for name in columns)
    for name in names:
        if counts[name.lower()] > 1:
            raise RecordError(
                f"{path} has the column '{name}' {counts[name.lower()]} times: keep one, "
                "or give the others other names"
            )


def read_table(path: Path) -> LogTable:
    """Read a table with columns separated by commas, semicolons, tabs or blanks.

    The separator is the one that the header has most columns by. Where it is no comma, and no
    number of the table has a decimal point, 0,5 is a half: so spreadsheets write it in many
    languages.

    Raises:
        RecordError: The file cannot be read, or is no such table.
    """
    columns, cells = open_table(path)
    rows = [
        {name: row[k] if k < len(row) else None for k, name in enumerate(columns)}
        for _, row in cells
    ]
    return LogTable(path, columns, rows)


def open_table(path: Path) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """Return the columns of a table, and its rows one at a time, each with its line.

    Rows that repeat the header, as a training does that was begun again, are left out.

    Raises:
        RecordError: The file cannot be read, or is no such table.
    """
    separator = _separator(path)
    ends, quoted = 0, False
    with path.open("rb") as file:  # before the slow reading of so many
        for block in iter(lambda: file.read(2**20), b""):
            ends += block.count(b"\n")
            quoted |= b'"' in block
    if ends > 2 * MOST_ROWS:
        raise _too_long(path)
    cells = _cells(path, separator)
    _, header = next(cells, (0, []))
    columns = tuple(name.strip() for name in header)
    halves = (separator != "," or quoted) and _are_halves(cells, separator)
    return columns, _rows(path, separator, header, halves=halves)


def _are_halves(cells: Iterable[tuple[int, list[str]]], separator: str) -> bool:
    """Tell whether commas in numbers are decimal points: no number of the table has one.

    Where commas part the columns too, a quoted one may be between thousands, unless one cannot be.
    """
    halves = separator != ","
    for _, row in cells:
        for cell in row:
            if _POINT.fullmatch(cell):
                return False
            halves |= _COMMA.fullmatch(cell) is not None and not _THOUSANDS.fullmatch(cell)
    return halves


def is_table(start: list[str]) -> bool:
    """Tell whether lines begin like a table: names in the first, numbers in the next."""
    start = list(_body(start))
    if not start:
        return False
    separator = _best_separator(start)
    first, *others = list(csv.reader(islice(start, 2), delimiter=separator, skipinitialspace=True))
    names = [name for name in first if name.strip()]
    if len(names) < 2 or any(map(_is_number, names)):
        return False
    if not others:
        return separator != " " and not any(re.search(r"[:=\s][\d.]+\s*%?$", n) for n in names)
    second = [cell for cell in others[0] if cell.strip()]
    numbers = sum(map(_is_number, second))
    if separator == " ":
        return len(second) == len(names) and numbers >= 2
    return len(others[0]) >= len(names) - 1 and numbers >= min(2, len(second))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _is_rule(line: str) -> bool:
    """Tell a line that is drawn below a header, or nothing but separators."""
    return not line.strip("|+-=: \t,;")


def _rows(
    path: Path, separator: str, header: list[str], *, halves: bool
) -> Iterator[tuple[int, list[str]]]:
    cells = _cells(path, separator)
    next(cells, None)
    for line, row in cells:
        if row == header:
            continue
        if halves:
            row = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in row]
        yield line, row


def _cells(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    # A row holds its own line end, so that a quoted cell may go over lines.
    reader = csv.reader(
        (f"{line}\n" for line in _body(lines(path))),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    count = size = 0
    try:
        for row in reader:
            if not row:
                continue
            count, size = count + 1, size + len(row)
            if count > MOST_ROWS or size > MOST_CELLS:
                raise _too_long(path)
            yield reader.line_num, row
    except csv.Error as error:
        raise RecordError(f"{path} is no CSV file with named columns: {error}") from error


def _too_long(path: Path) -> RecordError:
    return RecordError(
        f"{path} has more than {MOST_ROWS} rows or {MOST_CELLS} cells, which is no log of epochs: "
        "keep the rows and columns of the epochs"
    )


def _separator(path: Path) -> str:
    return _best_separator(list(islice(_body(lines(path)), 2)))


def _body(text: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a table without comments and rules.

    A comment right above numbers is their header, as numpy writes it.
    """
    comment, begun = "", False
    for line in text:
        if _is_rule(line) or (not begun and _SEP.fullmatch(line)):
            continue
        if line.lstrip().startswith("#"):
            comment = line.lstrip().lstrip("# ")
            continue
        if not begun and comment and all(map(_is_number, re.split(r"[,;\t|\s]+", line.strip()))):
            yield comment
        begun = True
        yield line


def _best_separator(start: list[str]) -> str:
    """Return the separator that makes the most columns of the header; a comma if none does."""

    def count(separator: str) -> int:
        return len(next(csv.reader(start[:1], delimiter=separator), ()))

    best = max(SEPARATORS, key=count)
    if start and count(best) < 2 and len(start) > 1 and len(start[0].split()) > 1:
        numbers = start[1].split()
        if len(numbers) == len(start[0].split()) and sum(map(_is_number, numbers)) >= 2:
            return " "
    return best
