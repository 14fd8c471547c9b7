"""Plain values that a pickle makes by naming classes and functions, without those themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainscope.errors import CheckpointError
from trainscope.networks.readers.inert import Inert, Named
from trainscope.networks.readers.numpy_values import STAND_INS
from trainscope.networks.readers.tensors import TENSOR_MAKERS

LARGEST_KEY = 64
"""Values in one key of a dictionary, where it is a tuple: hashing it takes as long as it is."""
FROM_TYPE = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")
"""What calls another maker for a subclass of tensors."""
SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
"""What is copied when it is made, in time by its length."""
_ATOMS = (str, bytes, float, bool, type(None), Named, Inert)


class Table(dict[Any, Any]):
    """A dictionary of a class of its own (ordered, with a default, a counter): items alone."""

    __slots__ = ()


def checked_key(key: object) -> object:
    """Return a key of a dictionary or an element of a set, if hashing it is quick.

    Python's hashes of numbers can be made to fall together, and that of a tuple takes as long as
    all that is in it; a name, a whole number of 64 bits or a short tuple of such is harmless.

    Raises:
        CheckpointError: It is anything else.
    """
    waiting, seen = [key], 0
    while waiting:
        each = waiting.pop()
        seen += 1
        if seen > LARGEST_KEY:
            raise CheckpointError(
                "the file nests its objects too deeply in the key of a dictionary; it is not taken"
            )
        if isinstance(each, tuple):
            waiting += each[: LARGEST_KEY + 1]
        elif not isinstance(each, _ATOMS) and not (
            isinstance(each, int) and -(2**63) <= each < 2**64
        ):
            kind = "dict" if isinstance(each, dict) else type(each).__name__
            raise CheckpointError(
                f"the file has a value of type {kind} as the key of a dictionary, which no "
                "training script writes; it is not taken"
            )
    return key


def _table(*given: object) -> Table:
    """Return the items that a class of dictionaries is made with; its default is left out."""
    made = Table()
    for each in given:
        pairs = each.items() if isinstance(each, dict) else each if isinstance(each, list) else ()
        for key, value in pairs:
            made[checked_key(key)] = value
    return made


def _bytes(value: object = b"", encoding: object = "latin1") -> bytes:
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin1")
    if isinstance(value, bytes):
        return value
    raise ValueError("bytes in an encoding that pickles do not use")


def _row(values: object = ()) -> tuple[object, ...]:
    if not isinstance(values, tuple | list):
        raise ValueError("a row of what is none")
    return tuple(values)


def _set(values: object = ()) -> set[object]:
    return set(map(checked_key, _row(values)))


def _complex(real: object, imaginary: object) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise ValueError("a complex number without parts")
    return complex(real, imaginary)


def _reconstructed(named: object, *_: object) -> object:
    if not isinstance(named, Named):
        raise ValueError("an object without a class")
    return _table() if named.name in _TABLES else Inert(named.name)


_TABLES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
PLAIN: dict[str, Callable[..., object]] = {
    **dict.fromkeys(_TABLES, _table),
    "_codecs.encode": _bytes,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.complex": _complex,
    "torch.Size": _row,
    "copyreg._reconstructor": _reconstructed,
}
"""What makes plain values, by the class or function that a pickle names."""

_DEFAULTS = {
    f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "str", "bool")
}
PLAIN_NAMES = frozenset({*PLAIN, *TENSOR_MAKERS, *STAND_INS, *FROM_TYPE, *_DEFAULTS})
"""The names of everything that is made here, and for which no code of the file's is needed."""
