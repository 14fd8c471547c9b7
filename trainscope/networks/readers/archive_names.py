"""The classes and functions that the pickles of a TorchScript or torch.export archive name.

Their weights are read without any of these pickles being run; a tool that loads the archive in full
runs them (torch 2.14's `torch.export.load` gives constants to Python's own `pickle.loads`).
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trainscope.networks.readers.pickle_names import each_named

_NO_PICKLE = re.compile(r"(^|/)(data|constants|traced_inputs)/\d+$|/code/")
"""Raw storages of tensors, and TorchScript's source."""

_ZIP = b"PK\x03\x04"
_PROTOCOLS = tuple(bytes((0x80, number)) for number in range(2, 6))


def named_in_archive(file: Path | IO[bytes]) -> list[str]:
    """Return every `module.name` that the pickles in an archive would look up, in order.

    Archives inside the archive, such as torch.export's example inputs, are looked into once.

    Args:
        file: A zip archive whose declared sizes were checked.

    Raises:
        Exception: Of any kind, where the archive is damaged.
    """
    return list(dict.fromkeys(_names(file, inner=False)))


def _names(file: Path | IO[bytes], *, inner: bool) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if _NO_PICKLE.search(entry.filename) or (inner and entry.compress_type):
                continue  # an inner archive's declared sizes were not checked
            with archive.open(entry) as opened:
                head = opened.read(len(_ZIP))
            if head == _ZIP and not inner:
                with contextlib.suppress(zipfile.BadZipFile):
                    yield from _names(io.BytesIO(archive.read(entry)), inner=True)
            elif entry.filename.endswith(".pkl") or head.startswith(_PROTOCOLS):
                # What comes before the damage of a damaged pickle would run as well.
                with contextlib.suppress(Exception):
                    yield from each_named(io.BytesIO(archive.read(entry)))
