"""Options of a command that belong together, taken as one record."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def take(kind: type[Record], options: dict[str, Any]) -> Record:
    """Take the fields of a dataclass out of a command's options, those of them that it has."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    return kind(**{name: options.pop(name) for name in names if name in options})


def check_all_taken(options: dict[str, Any]) -> None:
    """Check that a command has taken all of its options: what is left would be ignored.

    Raises:
        TypeError: Something is left, which is a bug of the command.
    """
    if options:
        raise TypeError(f"options that nothing takes: {', '.join(options)}")
