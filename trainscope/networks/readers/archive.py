"""The zip archive of torch.save: its records, mapped into memory and checked against their sums.

Torch writes a checksum beside every record and looks at none of them, so a bit that was flipped on
a disk or on the way becomes a weight. Here each record is held against its own before it is used.
"""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from trainscope.errors import CheckpointError
from trainscope.networks.readers.pickle_machine import Machine
from trainscope.networks.readers.tensors import Storage, storage_type

DAMAGED = "the file is damaged or cut short; copy or download it again"
_LOCAL_HEADER = 30
_ENCRYPTED = 0x1


def entries_of(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries of an archive.

    Raises:
        CheckpointError: It is cut short, or has an entry twice or under a password.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise CheckpointError(DAMAGED) from error
    twice = [name for name, count in Counter(e.filename for e in entries).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"the archive has two records named '{twice[0]}'; it was not written by torch.save"
        )
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise CheckpointError("the archive is under a password; unpack it and give what is in it")
    return entries


def check_declared(entries: list[zipfile.ZipInfo], size: int, *, script: bool = False) -> None:
    """Refuse an archive that is larger inside than outside.

    Args:
        entries: Its entries.
        size: The bytes of the file.
        script: Its code may be compressed, and is not read.
    """
    read = [each for each in entries if not script or "/code/" not in each.filename]
    declared = sum(each.file_size for each in read)
    if declared > size or any(each.compress_type for each in read if not script):
        raise CheckpointError(
            f"the file declares {declared:,} bytes and has {size:,}; torch.save does not compress, "
            "so it is not taken"
        )


class Records:
    """The records of an archive whose entries were checked, in a private map of the file."""

    def __init__(self, path: Path, entries: list[zipfile.ZipInfo]) -> None:
        with path.open("rb") as file:
            self._map = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        self._entries = {entry.filename: entry for entry in entries}
        pickled = [name for name in self._entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise CheckpointError("the archive holds several checkpoints; give one of them")
        self.pickled = pickled[0]
        # torch.serialization.set_crc32_options(False) leaves every checksum at zero.
        self._summed = self._entries[self.pickled].CRC != 0
        order = self.pickled.removesuffix("data.pkl") + "byteorder"
        self._big = order in self._entries and bytes(self.read(order)) == b"big"

    def read(self, name: str) -> memoryview:
        """Return the bytes of one record.

        Raises:
            CheckpointError: They do not have the checksum that was written beside them.
            Exception: There is no such record, or it reaches beyond the file.
        """
        entry = self._entries[name]
        start = entry.header_offset + _LOCAL_HEADER
        head = self._map[entry.header_offset : start]
        if bytes(head[:4]) != b"PK\x03\x04" or entry.compress_type:
            raise ValueError("no record begins here")
        start += int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        data = self._map[start : start + entry.file_size]
        if len(data) != entry.file_size:
            raise ValueError("the record reaches beyond the file")
        if self._summed and zlib.crc32(data) != entry.CRC:
            raise CheckpointError(
                f"the file is damaged: its record '{name}' does not have the checksum that was "
                "written with it; copy or download it again"
            )
        return data

    def storage(self, name: str, pid: tuple[Any, ...]) -> Storage:
        """Return the storage of a persistent id, in a record."""
        dtype, count = storage_type(pid[1]), pid[4]
        data: bytearray | memoryview = self.read(name)
        if type(count) is not int or count < 0 or len(data) < count * dtype.itemsize:
            raise ValueError("a storage is shorter than it says")
        if self._big and dtype.itemsize > 1:
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            data = bytearray(np.frombuffer(data, f"u{width}").byteswap().tobytes())
        return Storage(dtype, data)


def load_archive(path: Path, entries: list[zipfile.ZipInfo]) -> tuple[object, tuple[str, ...]]:
    """Return the objects of an archive, and what they name.

    Raises:
        CheckpointError: A record is damaged, or the pickle asks for too much.
        Exception: Of any kind, where it is damaged otherwise.
    """
    records = Records(path, entries)
    root = records.pickled.removesuffix("data.pkl")
    held: dict[str, Storage] = {}

    def storage(pid: tuple[Any, ...]) -> Storage:
        key = pid[2]
        if not isinstance(key, str):
            raise ValueError("a storage without a name")
        if key not in held:
            held[key] = records.storage(f"{root}data/{key}", pid)
        return held[key]

    pickled = records.read(records.pickled)
    machine = Machine(io.BytesIO(pickled), len(pickled), storage)
    return machine.run(), tuple(machine.names)
