"""What public training scripts save beside tensors, and is harmless to restore.

Restoring one makes a plain value and runs no code of a file's choosing. Arrays go through a check
of our own, so that a file cannot ask for memory that it does not fill.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_ELEMENTS = 1
"""An array is made empty, and takes its memory from the bytes that the file holds."""


def _empty_array(kind: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Make the array that `__setstate__` then fills, as numpy's `_reconstruct` does."""
    if kind is not np.ndarray or int(np.prod(shape)) > MOST_ELEMENTS:
        raise ValueError("no array is saved so")
    return np.empty(shape, dtype)


def _numpy() -> list[Any]:
    scalar = np.float64(0).__reduce__()[0]
    places = ("numpy._core.multiarray", "numpy.core.multiarray")
    dtypes = [each for each in vars(np.dtypes).values() if isinstance(each, type)]
    return [
        np.ndarray,
        np.dtype,
        *(each for each in dtypes if each is not np.dtypes.ObjectDType),
        *((scalar, f"{place}.scalar") for place in places),
        *((_empty_array, f"{place}._reconstruct") for place in places),
    ]


ALLOWED: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    argparse.Namespace,
    collections.defaultdict,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    *((pathlib.PurePosixPath, f"pathlib.{name}") for name in ("WindowsPath", "PureWindowsPath")),
    *((pathlib.PosixPath, f"pathlib._local.{name}") for name in ("PosixPath", "WindowsPath")),
    *_numpy(),
)


def allowed_names() -> frozenset[str]:
    """Return the names under which pickles know what is allowed."""
    return frozenset(
        each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__name__}"
        for each in ALLOWED
    )
