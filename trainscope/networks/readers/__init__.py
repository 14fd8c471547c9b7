"""Checkpoint formats, one a file. Each is a module with `recognises` and `read`.

A new format is one file and one line in READERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainscope.errors import CheckpointError
from trainscope.networks.readers import (
    bare,
    imagenet_example,
    own,
    torchvision_reference,
    wrapped,
)
from trainscope.networks.readers.container import load
from trainscope.networks.readers.contents import Contents, Reader

__all__ = ["READERS", "Contents", "Reader", "contents_of"]

READERS: tuple[Reader, ...] = (own, torchvision_reference, imagenet_example, wrapped, bare)
"""The formats, in the order in which a file is matched with them."""


def contents_of(path: Path) -> Contents:
    """Return what is in a checkpoint file, running nothing in it.

    Raises:
        CheckpointError: It cannot be loaded, or is of no known format. The message does not name
            the path.
    """
    obj = load(path)
    reader = next((each for each in READERS if each.recognises(obj)), None)
    if reader is None:
        raise CheckpointError(
            f"the file holds no network's weights: {_what(obj)}; give a state dict"
        )
    return reader.read(obj)


def _what(obj: object) -> str:
    if isinstance(obj, Mapping):
        keys = ", ".join(repr(key) for key in list(obj)[:5]) + (", ..." if len(obj) > 5 else "")
        return f"it is a dictionary of {keys}" if obj else "it is an empty dictionary"
    return f"it is a {type(obj).__name__}"
