"""Records from JSON: every value is checked against the type of its field, as it is declared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
LARGEST = 1e30
"""A whole number above this counts nothing in a record; more FLOPs than all training has spent."""
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def typed(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Return a record made of JSON values and of records.

    Args:
        kind: Its class, a dataclass.
        values: Its fields by name; lists become the tuples that are declared.

    Raises:
        ValueError: A value is not of its field's type, or no finite number of sensible size.
        TypeError: A field is missing, or is none of the record's.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a class can be hashed
    return kind(
        **{
            name: _checked(value, hints[name], name) if name in hints else value
            for name, value in values.items()
        }
    )


def record_of(kind: type[Record], raw: Mapping[str, Any], **made: Any) -> Record:
    """Return a record whose JSON object has all of its fields by their names.

    Args:
        kind: Its class, a dataclass.
        raw: The JSON object; what it has beside the fields is passed over.
        made: Fields that were made of it already.

    Raises:
        KeyError: A field is missing.
        ValueError: As `typed`.
    """
    own = {part.name: raw[part.name] for part in fields(kind) if part.name not in made}  # type: ignore[arg-type]
    return typed(kind, {**own, **made})


def listed(value: Any, name: str) -> list[Any]:
    """Return a value that must be a list.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _checked(value: Any, hint: Any, name: str) -> Any:
    """Return a value as its field holds it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _checked(value, next(part for part in inner if part is not NoneType), name)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{name} is none of {', '.join(map(str, inner))}")
        return value
    if hint is Any:
        return _plain(value, name)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is no list")
        if len({isinstance(part, str) for part in value if part is not None}) > 1:
            raise ValueError(f"{name} mixes text and numbers")
        return origin(_checked(part, inner[0], name) for part in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is no object")
        return {
            _checked(key, inner[0], name): _checked(part, inner[1], f"{name}.{key}")
            for key, part in value.items()
        }
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    kinds = (int, float) if hint is float else hint
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} is not {_WORDS.get(hint, 'what it should be')}")
    if isinstance(value, int | float) and not _sensible(value, whole=hint is int):
        raise ValueError(f"{name} is no finite number of sensible size")
    return value


def _sensible(value: float, *, whole: bool) -> bool:
    if isinstance(value, int):  # JSON has whole numbers of any length, and most of them no float
        return abs(value) <= (LARGEST if whole else 2**1000)
    return math.isfinite(value)


def _plain(value: Any, name: str) -> Any:
    """Return a value of any kind that JSON has."""
    if isinstance(value, list | tuple):
        for part in value:
            _plain(part, name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _plain(part, f"{name}.{key}")
    elif value is not None and not isinstance(value, str | bool):
        _checked(value, float, name)
    return value
