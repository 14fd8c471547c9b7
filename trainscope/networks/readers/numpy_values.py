"""Numpy's numbers as pickles write them, read without numpy's own unpickling.

A pickle can change a numpy dtype after an array was made with it, and then numpy takes the array's
bytes for pointers. So a file's dtypes and arrays are stand-ins here, and numbers are Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_NUMBER = re.compile(r"[biufcSU]\d+")
_REAL = re.compile(r"[biuf]\d+")
_PLACES = ("numpy._core.multiarray", "numpy.core.multiarray")


class Dtype:
    """A dtype by its letters; nothing of numpy's.

    Args:
        letters: Like "f8".
    """

    __slots__ = ("letters", "order")

    def __init__(self, letters: object = "", *_: object) -> None:
        self.letters = letters if isinstance(letters, str) else ""
        self.order = "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Take the byte order over, and nothing else that a pickle may set."""
        if len(state) > 1 and state[1] in ("<", ">"):
            self.order = str(state[1])


class Array:
    """An array that training left beside the weights: its values are read when they are asked for.

    Attributes:
        shape: As the pickle says it.
        raw: Its bytes, or its objects; None before the pickle sets them.
        dtype: What its bytes are.
        by_columns: Whether the first axis runs fastest.
    """

    __slots__ = ("by_columns", "dtype", "raw", "shape")

    def __init__(self, *_: object) -> None:
        """Hold nothing yet."""
        self.shape: tuple[object, ...] = ()
        self.raw: bytes | bytearray | list[object] | None = None
        self.dtype: object = None
        self.by_columns = False

    def keep(self, state: object) -> None:
        """Keep what a pickle sets: (version, shape, dtype, by columns, bytes or objects)."""
        if isinstance(state, tuple) and len(state) >= 5 and isinstance(state[1], tuple):
            self.shape, self.dtype, self.by_columns = state[1], state[2], state[3] is True
            self.raw = state[4] if isinstance(state[4], bytes | bytearray | list) else None

    def numbers(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
        """Return its numbers, in double precision; None where it holds none.

        Raises:
            ValueError: It has more or fewer bytes than its shape says.
        """
        raw, dtype = self.raw, self.dtype
        if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, Dtype):
            return None
        if _REAL.fullmatch(dtype.letters) is None:
            return None
        flat = np.frombuffer(raw, dtype.order + dtype.letters).astype(np.float64)
        shape = [int(side) for side in self.shape if type(side) is int and side >= 0]
        if len(shape) != len(self.shape):
            raise ValueError("an array with a side that is no length")
        return flat.reshape(shape, order="F" if self.by_columns else "C")


def from_buffer(
    raw: object = None, dtype: object = None, shape: object = (), order: object = "C", *_: object
) -> Array:
    """Return an array of a pickle of protocol 5."""
    array = Array()
    array.keep((1, shape, dtype, order == "F", raw))
    return array


def scalar(dtype: object, raw: object = None) -> bool | int | float | complex | str | bytes | None:
    """Return the number or string that numpy's `scalar` would, or None where it is neither.

    Raises:
        ValueError: There are more or fewer bytes than the dtype has.
    """
    if not isinstance(dtype, Dtype) or not isinstance(raw, bytes):
        return None
    if _NUMBER.fullmatch(dtype.letters) is None:
        return None
    if len(raw) != np.dtype(dtype.letters).itemsize:
        raise ValueError("a number is cut short")
    value: bool | int | float | complex | str | bytes
    value = np.frombuffer(raw, dtype.order + dtype.letters)[0].item()
    return value


STAND_INS: dict[str, Callable[..., object]] = {
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    **{f"{place}.scalar": scalar for place in _PLACES},
    **{f"{place}._reconstruct": Array for place in _PLACES},
    "numpy._core.numeric._frombuffer": from_buffer,
    "numpy.core.numeric._frombuffer": from_buffer,
}
"""What stands in for numpy, by the name that pickles know it by."""
