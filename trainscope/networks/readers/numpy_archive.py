"""Weights that numpy saved: `.npz`, an archive of arrays by name, none of them pickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.readers.archive import DAMAGED
from trainscope.networks.readers.contents import Contents

Array = np.ndarray[Any, Any]
FORMAT = "numpy archive"
END = ".npy"
MOST_BYTES = 2**32
"""Of arrays that are compressed, so that a small file does not take all memory."""
_KINDS = "fiub"


def is_arrays(entries: list[zipfile.ZipInfo]) -> bool:
    """Say whether an archive holds numpy's arrays and nothing else."""
    return bool(entries) and all(entry.filename.endswith(END) for entry in entries)


def read(path: Path) -> Contents:
    """Return the arrays of an archive as tensors; those of words and dates are left out.

    Raises:
        CheckpointError: It is damaged, holds pickled objects, or declares too much.
    """
    found: dict[str, Tensor] = {}
    left = 0
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            declared = sum(entry.file_size for entry in entries)
            if declared > max(MOST_BYTES, path.stat().st_size):
                raise CheckpointError(
                    f"the archive unpacks to {declared:,} bytes; save it with np.savez, which does "
                    "not compress"
                )
            for entry in entries:
                with archive.open(entry) as file:
                    array = _array(file, entry)
                if array.dtype.kind in _KINDS:
                    found[entry.filename.removesuffix(END)] = torch.from_numpy(_native(array))
                else:
                    left += 1
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive can fail anywhere
        raise CheckpointError(DAMAGED) from error
    if not found:
        raise CheckpointError("the archive holds no arrays of numbers; give a network's weights")
    note = (
        f"{left} arrays of words were left out." if left > 1 else "An array of words was left out."
    )
    return Contents(state_dict=found, format=FORMAT, notes=(note,) if left else ())


def _array(file: IO[bytes], entry: zipfile.ZipInfo) -> Array:
    """Return one array, whose header declares what the archive stores of it."""
    first = np.lib.format.read_magic(file) == (1, 0)
    header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    name = entry.filename.removesuffix(END)
    if dtype.hasobject:
        raise CheckpointError(
            f"the array '{name}' holds pickled objects, which only code could load; save each "
            "tensor as an array of its own: np.savez(file, **{name: tensor.numpy()})"
        )
    count = int(np.prod(shape, dtype=object)) if shape else 1
    raw = file.read()
    if len(raw) != count * dtype.itemsize:
        raise CheckpointError(f"the array '{name}' is cut short; copy or download the file again")
    array = np.frombuffer(bytearray(raw), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _native(array: Array) -> Array:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).reshape(
        array.shape
    )
