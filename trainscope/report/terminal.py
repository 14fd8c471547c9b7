"""Parts that every table on the terminal has: a title with its sentences below it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def section(title: str, lines: Iterable[str], style: str = "") -> list[RenderableType]:
    """Return an empty line, a title and its sentences; nothing where there are none."""
    bullets = [bullet(line, style) for line in lines]
    return [Text(), Text(title, style="bold"), *bullets] if bullets else []


def bullet(line: str, style: str = "") -> Table:
    """Return a sentence whose further lines hang under its first."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(" •", style), Text(line, style))
    return grid
