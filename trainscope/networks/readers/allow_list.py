"""What public training scripts save beside tensors, and is harmless to restore.

Restoring one makes a plain value and runs no code of a file's choosing. Numpy's are stand-ins of
our own.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Callable
from typing import Any

from trainscope.networks.readers.numpy_values import STAND_INS

ALLOWED: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    argparse.Namespace,
    collections.defaultdict,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    *((pathlib.PurePosixPath, f"pathlib.{name}") for name in ("WindowsPath", "PureWindowsPath")),
    *((pathlib.PosixPath, f"pathlib._local.{name}") for name in ("PosixPath", "WindowsPath")),
    *((stand_in, name) for name, stand_in in STAND_INS.items()),
)


def allowed_names() -> frozenset[str]:
    """Return the names under which pickles know what is allowed."""
    return frozenset(
        each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__name__}"
        for each in ALLOWED
    )
