"""The older layout of torch.save: a row of pickles, then the bytes of the storages."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import IO, Any, cast

from trainscope.errors import CheckpointError
from trainscope.networks.readers.pickle_machine import Machine
from trainscope.networks.readers.tensors import Storage, storage_type

_BEFORE = 3  # magic number, version and system; then come the objects and the storages' keys


def load_row(path: Path) -> tuple[object, tuple[str, ...]]:
    """Return the objects of a file of the older layout, and what they name.

    Raises:
        CheckpointError: There are bytes behind its end, or a pickle asks for too much.
        Exception: Of any kind, where it is damaged otherwise.
    """
    size = path.stat().st_size
    left = size
    held: dict[str, Storage] = {}

    def storage(pid: tuple[Any, ...]) -> Storage:
        nonlocal left
        dtype, key, count = storage_type(pid[1]), str(pid[2]), pid[4]
        if not isinstance(pid[2], str | int) or type(count) is not int or count < 0:
            raise ValueError("a storage without a name or a length")
        if key not in held:
            left -= count * dtype.itemsize
            if left < 0:
                raise ValueError("the storages are larger than the file")
            held[key] = Storage(dtype, bytearray(count * dtype.itemsize))
        return _part(held[key], pid[5] if len(pid) > 5 else None)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        stream = cast(IO[bytes], mapped)
        for _ in range(_BEFORE):
            Machine(stream, size, storage).run()
        machine = Machine(stream, size, storage)
        loaded = machine.run()
        keys = Machine(stream, size, storage).run()
        if not isinstance(keys, list) or {str(key) for key in keys} != held.keys():
            raise ValueError("the storages are not those of the tensors")
        for key in keys:
            whole = held[str(key)]
            count = int.from_bytes(mapped.read(8), "little")
            read = mapped.read(len(whole.data))
            if count * whole.dtype.itemsize != len(whole.data) or len(read) != len(whole.data):
                raise ValueError("a storage is cut short")
            whole.data[:] = read
        behind = size - mapped.tell()
    if behind:
        raise CheckpointError(
            f"the file has {behind:,} bytes behind its end: it is damaged, or several checkpoints "
            "in one; copy or download it again"
        )
    return loaded, tuple(machine.names)


def _part(whole: Storage, view: object) -> Storage:
    """Return what a file of before 0.4 takes of a storage: (key, offset, length) in values."""
    if view is None:
        return whole
    if not isinstance(view, tuple) or len(view) != 3:
        raise ValueError("a part of a storage without a length")
    start, count = view[1:]
    wide = whole.dtype.itemsize
    if type(start) is not int or type(count) is not int or min(start, count) < 0:
        raise ValueError("a part of a storage without a length")
    if (start + count) * wide > len(whole.data):
        raise ValueError("a part reaches beyond its storage")
    return Storage(whole.dtype, memoryview(whole.data)[start * wide : (start + count) * wide])
