"""What a training saved of its numbers with torch, pickle or NumPy, without running any code of it.

A history is lists of numbers by name. Objects of classes that are not imported count by their
attributes, weights are left out, and arrays and tensors of one axis become lists.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainscope.errors import CheckpointError, RecordError
from trainscope.networks.readers import numpy_archive
from trainscope.networks.readers.archive import DAMAGED, entries_of
from trainscope.networks.readers.container import (
    ROW,
    NeedsCodeError,
    first_bytes,
    load,
    load_pickle,
)
from trainscope.networks.readers.inert import Inert
from trainscope.networks.readers.numpy_values import Array
from trainscope.records.imports.binary import ARRAY, ZIP

MOST_VALUES = 2_000_000
"""Of one list."""
MOST_DEPTH = 12
PANDAS = "pandas."


def open_history(path: Path) -> object:
    """Return what a file holds as plain lists, numbers and dictionaries by name.

    Args:
        path: What `torch.save`, `pickle.dump`, `numpy.save` or `numpy.savez` wrote.

    Raises:
        RecordError: It is damaged, holds nothing of the kind, or only code could load it.
    """
    try:
        loaded, names = _load(path)
    except NeedsCodeError as error:
        shown = ", ".join(error.classes[:3])
        raise RecordError(
            f"{path} holds Python objects ({shown}) that only running code could load, which is "
            "not done: load it yourself, and save its lists as JSON or CSV"
        ) from error
    except CheckpointError as error:
        raise RecordError(f"{path}: {error}") from error
    if isinstance(loaded, Inert) and loaded.named.startswith(PANDAS):
        raise RecordError(
            f"{path} is a table that pandas pickled, which only pandas can read: write it with "
            "df.to_csv(FILE)"
        )
    found = _plain(loaded, 0)
    if found is None or isinstance(found, str | int | float | bool):
        raise RecordError(
            f"{path} holds no lists of epochs ({', '.join(names[:3]) or 'a single value'}): give "
            "the log of the training, or save its lists by name"
        )
    return found


def _load(path: Path) -> tuple[object, tuple[str, ...]]:
    head = first_bytes(path)
    if head.startswith(ZIP) and numpy_archive.is_arrays(entries_of(path)):
        return dict(numpy_archive.read(path).state_dict), ()
    if head.startswith((ZIP, *ROW)):
        loaded = load(path)
        return loaded.objects, loaded.classes
    if head.startswith(ARRAY):
        return _array(path)
    loaded = load_pickle(path)
    return loaded.objects, loaded.classes


def _array(path: Path) -> tuple[object, tuple[str, ...]]:
    """Return what `numpy.save` wrote: an array of numbers, or of objects, which are pickled."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files from Python 2
            first = np.lib.format.read_magic(file) == (1, 0)
            header = (
                np.lib.format.read_array_header_1_0
                if first
                else np.lib.format.read_array_header_2_0
            )
            shape, by_columns, dtype = header(file)
            start = file.tell()
        count = math.prod(shape)
        if not dtype.hasobject:
            if count > MOST_VALUES or path.stat().st_size != start + count * dtype.itemsize:
                raise CheckpointError(DAMAGED)
            flat = np.frombuffer(path.read_bytes()[start:], dtype=dtype)
            array = flat.reshape(shape, order="F" if by_columns else "C")
            if dtype.names:
                return {name: array[name].tolist() for name in dtype.names}, ()
            return array.tolist() if dtype.kind in "fiub" else None, ()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can fail anywhere
        raise CheckpointError(DAMAGED) from error
    loaded = load_pickle(path, start)
    return loaded.objects, loaded.classes


def _plain(value: object, depth: int) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if depth > MOST_DEPTH:
        return None
    if isinstance(value, Inert):
        value = value.state or value.items
    if isinstance(value, dict):
        if any(_is_weight(each) for each in value.values()):
            return None
        kept = {str(name): _plain(each, depth + 1) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each is not None}
    if isinstance(value, list | tuple):
        if len(value) > MOST_VALUES:
            return None
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, Tensor):
        return value.tolist() if value.dim() < 2 and value.numel() <= MOST_VALUES else None
    if isinstance(value, Array):
        return _listed(value, depth)
    return None


def _listed(array: Array, depth: int) -> Any:
    if isinstance(array.raw, list):
        whole = array.raw[0] if array.shape == () and len(array.raw) == 1 else array.raw
        return _plain(whole, depth + 1)
    try:
        numbers = array.numbers()
    except ValueError:
        return None
    return None if numbers is None or numbers.ndim > 2 else numbers.tolist()


def _is_weight(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 1
