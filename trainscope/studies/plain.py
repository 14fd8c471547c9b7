"""Actions and settings as plain JSON, without what is left at its default.

A field that a later version adds does not change the digest of a run that does not use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from trainscope.errors import StudyError, TrainscopeError, about
from trainscope.records import Json
from trainscope.studies.unknown import unknown

Made = TypeVar("Made")

KEY = 16
"""Hexadecimal digits of a digest that name a folder."""


def plain(record: Any, without: tuple[str, ...] = ()) -> Json:
    """Return the fields of a frozen dataclass that are not at their defaults, in plain types.

    Args:
        record: It.
        without: Names of fields to leave out.

    Raises:
        StudyError: A field holds something that JSON has no form for.
    """
    hints = _hints(type(record))  # type: ignore[arg-type]  # a class can be hashed
    found = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name not in without and value != default(each):
            found[each.name] = _value(value, hints[each.name], each.name)
    return found


def from_plain(kind: type[Made], raw: Mapping[str, Any], what: str) -> Made:
    """Return the dataclass that `plain` wrote, or a person.

    Args:
        kind: Its class.
        raw: Its fields by name, some or all.
        what: The thing in words, for messages, like "action".

    Raises:
        StudyError: A field does not exist or is missing, or its value cannot be; `field` says
            which.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a class can be hashed
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    values = {}
    for name, value in raw.items():
        with about(name):
            if name not in names:
                raise StudyError(unknown(name, names, f"key of {what}"))
            values[name] = _back(value, hints[name], f"{what}.{name}")
    for each in fields(kind):  # type: ignore[arg-type]  # it is a dataclass
        if each.name not in values and default(each) is MISSING:
            raise StudyError(f"{what} has no {each.name}: add it")
    try:
        return kind(**values)
    except TrainscopeError:
        raise
    except (TypeError, ValueError) as error:
        raise StudyError(f"{what} cannot be made: {error}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def default(each: Field[Any]) -> Any:
    """Return a field's default; MISSING where it has none."""
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _value(value: Any, hint: Any, name: str) -> Any:
    """Return a value in plain types; whole numbers in a field of floats become floats."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(value) if _wants_float(hint) else value
    if isinstance(value, Mapping):
        return {str(key): _value(part, _inner(hint, -1), name) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        rows = sorted(value) if isinstance(value, set | frozenset) else value
        return [_value(part, _inner(hint, 0), name) for part in rows]
    named = getattr(value, "name", None)
    if not is_dataclass(value) and isinstance(named, str):
        return named
    if is_dataclass(value) and not isinstance(value, type):
        return ({"name": named} if isinstance(named, str) else {}) | plain(value)
    raise StudyError(f"{name} holds a {type(value).__name__}, which has no plain form: name it")


def _wants_float(hint: Any) -> bool:
    if hint is float:
        return True
    return get_origin(hint) in (Union, UnionType) and float in get_args(hint)


def _inner(hint: Any, place: int) -> Any:
    """Return the type of what a container's type holds; Any where it does not say."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) not in (None, Union, UnionType) and get_args(part):
            return get_args(part)[place] if get_args(part)[place] is not ... else get_args(part)[0]
    return Any


def _back(value: Any, hint: Any, name: str) -> Any:
    """Return a plain value as its field holds it."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    record = next((o for o in options if isinstance(o, type) and is_dataclass(o)), None)
    kinds = [get_origin(option) for option in options]
    if isinstance(value, Mapping):
        if record is not None:
            return from_plain(record, value, name)
        if Mapping not in kinds and dict not in kinds:
            raise StudyError(f"{name} takes no table: write one value, or a list of values")
        return {key: _back(part, _inner(hint, -1), name) for key, part in value.items()}
    if isinstance(value, list) and tuple in kinds:
        return tuple(_back(part, _inner(hint, 0), name) for part in value)
    if isinstance(value, bool | int | float | str | list) and type(value) not in options:
        wanted = "a table" if record or Mapping in kinds else "a list" if tuple in kinds else None
        if wanted is not None:
            raise StudyError(f"{name} is {wanted}, not {value!r}")
    _refuse_kind(value, options, name)
    return float(value) if type(value) is int and _wants_float(hint) else value


def _refuse_kind(value: Any, options: tuple[Any, ...], name: str) -> None:
    """Refuse text for a number, a number for text, and the like.

    Raises:
        StudyError: The value is of no type that the field has.
    """
    plain_kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if not set(options) <= {*plain_kinds, type(None)}:
        return
    fits = type(value) in options or (type(value) is int and float in options)
    if not fits and not (value is None and type(None) in options):
        wanted = " or ".join(plain_kinds[o] for o in options if o in plain_kinds)
        raise StudyError(f"{name} is {wanted}, not {value!r}")
