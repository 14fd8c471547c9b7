"""A table as text: a header of names, then a row a line, whatever its separator."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.names import ACCURACY, EPOCH, LOSS, STEP, meaning
from trainscope.records.imports.text_file import lines

SEPARATORS = (",", ";", "\t", "|")
"""What may stand between columns; the header tells which. Else blanks may."""
MOST_ROWS = 150_000
MOST_CELLS = 20_000_000
MOST_ABOVE = 20_000
"""Lines above a table, at most."""
MOST_HEADER = 10_000
"""Characters of a header that stands below other lines."""
_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")
_POINT = re.compile(r"\s*[+-]?\d*\.\d+(?:e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)
DOTS = ("..", "\u2026")
_DOTS = re.compile(r"\.{2,}|\u2026")
_TYPES = re.compile(r"(?:\s*\|\s*(?:[iuf](?:8|16|32|64)|str|bool|date|datetime\S*))+\s*\|\s*")
_BOLD = re.compile(r"\s*(\*\*|__|\*|`)(.+?)\1\s*")
_SIZE = re.compile(r"\[\d+ rows x \d+ columns\]")
"""What pandas prints below a table"""
_SEP = re.compile(r"\s*sep=.?\s*", re.IGNORECASE)
"""What spreadsheets write above the header to name the separator."""
_NUMBER = re.compile(r"\s*[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?\s*%?\s*|nan|[+-]?inf|", re.I)


@dataclass(frozen=True, slots=True)
class LogTable:
    """A table as it was read.

    Attributes:
        path: Of the file, for messages.
        columns: The names in the header.
        rows: The cells by name. A row that is too short has None.
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


def open_table(
    path: Path, *, again: bool = False
) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """Return the columns of a table, and its rows one at a time, each with its line.

    A table below lines of another kind, as a notebook or a README has it, is read from its header
    on. A row that repeats the header, as a training does that was begun again, is left out.

    Args:
        path: The file.
        again: Whether such a row is told by one without cells.

    Raises:
        RecordError: The file cannot be read, or is no such table; a row has more cells than there
            are columns, or rows are left out where the table was printed.
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
    if separator == " " and _has_index(path, len(header)):
        header = ["", *header]
    columns = tuple(_plain(name).strip() for name in header)
    halves = (separator != "," or quoted) and _are_halves(cells, separator)
    rows = _rows(path, separator, header, halves=halves)
    return columns, rows if again else (item for item in rows if item[1])


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
    start = list(_cleaned(start))
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
        index = len(second) == len(names) + 1 and second[0].isdigit()
        return (len(second) == len(names) or index) and numbers >= 2
    return len(others[0]) >= len(names) - 1 and numbers >= min(2, len(second))


def is_bare(start: list[str]) -> bool:
    """Tell lines of nothing but numbers, two at least in each: a table without a header."""
    first = [re.split(r"[,;\t|\s]+", line.strip()) for line in start[:3]]
    return len(first) > 1 and all(len(row) > 1 and all(map(_is_number, row)) for row in first)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _is_rule(line: str) -> bool:
    """Tell a line that is drawn below a header, or nothing but separators, or polars's types."""
    return not line.strip("|+-=: \t,;") or _TYPES.fullmatch(line) is not None


def _rows(
    path: Path, separator: str, header: list[str], *, halves: bool
) -> Iterator[tuple[int, list[str]]]:
    cells = _cells(path, separator)
    named = next(cells, (0, []))[1]
    for count, (line, row) in enumerate(cells):
        if row == named:
            yield line, []
            continue
        if row[0].lstrip().startswith(DOTS) and _is_elided(row):
            raise RecordError(
                f"{path}, line {line} stands for rows that were left out where the table was "
                "printed: write the whole table, as df.to_csv(FILE) does"
            )
        if count == 0 and 1 < len(row) == len(header) and not any(map(_holds_number, row)):
            continue  # units
        if separator == " " and _SIZE.fullmatch(" ".join(row)):
            continue
        last = len(row) - 1
        while last >= len(header) and not row[last].strip():
            last -= 1
        if last >= len(header):
            raise RecordError(
                f"{path}, line {line} has {last + 1} cells for {len(header)} columns: a name for "
                "each is needed, and a comma within a cell, as in 0,5, must stand in quotes"
            )
        row = [_plain(cell) for cell in row]
        if halves:
            row = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in row]
        yield line, row


def _plain(cell: str) -> str:
    """Return a cell without the marks that print it in bold: `**70.1**`, `__70.1__`."""
    found = _BOLD.fullmatch(cell)
    return cell if found is None else found[2]


def _holds_number(cell: str) -> bool:
    return bool(cell.strip()) and _is_number(cell)


def _is_elided(row: list[str]) -> bool:
    cells = [cell.strip() for cell in row if cell.strip()]
    return bool(cells) and all(_DOTS.fullmatch(cell) for cell in cells)


def _has_index(path: Path, columns: int) -> bool:
    """Tell a printed table whose rows begin with their number, which has no name: pandas's."""
    cells = _cells(path, " ")
    next(cells, None)
    first = [row for _, row in islice(cells, 2)]
    return bool(first) and all(len(row) == columns + 1 and row[0].isdigit() for row in first)


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


def is_below(path: Path) -> bool:
    """Tell a table that stands below lines of another kind."""
    return _header_below(lines(path)) is not None


def _body(text: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a table, which may stand below others, without comments and rules."""
    held = list(islice(iterator := iter(text), MOST_ABOVE))
    start = list(islice(_cleaned(held), 2))
    header = None if is_table(start) else _header_below(held)
    if header is None:
        yield from _cleaned(chain(held, iterator))
        return
    below = _cleaned(chain(held, iterator))
    separator, count, begun = header[1], header[2], False
    for line in below:
        begun |= line == header[0]
        if begun and (line == header[0] or _fits(line, separator, count)):
            yield line


def _header_below(text: Iterable[str]) -> tuple[str, str, int] | None:
    """Return the header of a table below other lines: it, its separator and its columns.

    It names an epoch or a step, and an accuracy or a loss.
    """
    for line, below in pairwise(_cleaned(islice(text, MOST_ABOVE))):
        if len(line) > MOST_HEADER or not is_table([line, below]):
            continue
        separator = _best_separator([line, below])
        names = _parted(line, separator)
        fields = {m.field for name in names if (m := meaning(name.strip())) is not None}
        if fields & {EPOCH, STEP} and fields & {ACCURACY, LOSS}:
            return line, separator, len(names)
    return None


def _fits(line: str, separator: str, count: int) -> bool:
    """Tell a row of a table from what else stands about it."""
    if len(line) > MOST_HEADER:
        return False
    cells = _parted(line, separator)
    return count - 1 <= len(cells) <= count + 1 and any(map(_holds_number, cells))


def _parted(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []


def _cleaned(text: Iterable[str]) -> Iterator[str]:
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
        more = len(numbers) - len(start[0].split())
        index = more == 1 and numbers[0].isdigit()
        if (not more or index) and sum(map(_is_number, numbers)) >= 2:
            return " "
    return best
