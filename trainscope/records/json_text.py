"""JSON that anybody may have written: no NaN, nothing nested too deeply, text that prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainscope.errors import RecordError

DEEPEST = 100
"""Nested deeper than this is no record, and no recursion is left to walk it."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def parse(text: str) -> Any:
    """Return what a JSON text holds; half of a surrogate pair becomes the replacement character.

    Raises:
        ValueError: It is no JSON, holds NaN or Infinity or a number of thousands of digits, or is
            nested too deeply.
    """
    deep = f"it is nested more than {DEEPEST} deep"
    try:
        whole = json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError(deep) from error
    level, depth = [whole], 0
    while level:
        if depth >= DEEPEST:
            raise ValueError(deep)
        level, depth = [part for each in level for part in _parts(each)], depth + 1
    return _whole_letters(whole) if r"\ud" in text or r"\uD" in text else whole


def document(text: str, what: str) -> tuple[Any, object]:
    """Return what a record's text holds, and the schema that it says; None where it says none.

    Args:
        text: JSON.
        what: The record's kind, like "Run".

    Raises:
        RecordError: It is no JSON.
    """
    try:
        raw = parse(text)
    except ValueError as error:
        raise RecordError(f"this is no {what}: it is not JSON ({error})") from error
    return raw, raw.get("schema") if isinstance(raw, dict) else None


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Say of what fails in a block that takes a document apart that the record is damaged.

    Raises:
        RecordError: Something is missing, or of another kind.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise RecordError(f"this {what} is incomplete or damaged: {said}") from error


def _parts(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (part for part in inner if isinstance(part, dict | list))


def _whole_letters(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_whole_letters(name): _whole_letters(part) for name, part in value.items()}
    return [_whole_letters(part) for part in value] if isinstance(value, list) else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
