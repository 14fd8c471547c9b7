"""Numpy's numbers as pickles write them, read without numpy's own unpickling.

A pickle can change a numpy dtype after an array was made with it, and then numpy takes the array's
bytes for pointers. So a file's dtypes and arrays are stand-ins here, and numbers are Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_NUMBER = re.compile(r"[biufcSU]\d+")
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
    """An array that training left beside the weights; its values are not read."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        """Keep nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


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
}
"""What stands in for numpy, by the name that pickles know it by."""
