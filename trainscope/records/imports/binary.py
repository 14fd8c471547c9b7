"""Files that are no text, told by their first bytes: what each is, and what to do with it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from trainscope.errors import RecordError

ZIP, ARRAY, PICKLE = b"PK\x03\x04", b"\x93NUMPY", b"\x80"
_COMPRESSED = "is compressed: unpack it, and give the log in it"
_TO_CSV = "write it as CSV, with df.to_csv(FILE), and give that"
OTHERS = {
    b"PAR1": f"is a Parquet file: {_TO_CSV}",
    b"ARROW1": f"is a Feather file: {_TO_CSV}",
    b"\x89HDF": f"is an HDF5 file: {_TO_CSV}",
    b"MATLAB 5.0": f"is a file of MATLAB's: {_TO_CSV}",
    b"SQLite format 3": "is a database: export the metrics of the run as CSV, and give that",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet: save it as CSV, and give that",
    b"\x1f\x8b": _COMPRESSED,
    b"BZh": _COMPRESSED,
    b"\xfd7zXZ": _COMPRESSED,
    b"\x28\xb5\x2f\xfd": _COMPRESSED,
    b"7z\xbc\xaf": _COMPRESSED,
    b"%PDF": "is a PDF: give the log of the training itself",
    b"\x89PNG": "is a picture: give the log of the training itself",
    b"\xff\xd8\xff": "is a picture: give the log of the training itself",
}


def is_saved(begin: bytes, path: Path) -> bool:
    """Tell what torch, pickle or NumPy saved from text.

    Args:
        begin: How the file begins.
        path: The file.

    Raises:
        RecordError: It is known to be something else that is no text.
    """
    for start, what in OTHERS.items():
        if begin.startswith(start):
            raise RecordError(f"{path} {what}")
    if begin.startswith(ZIP):
        return _is_saved_archive(path)
    return begin.startswith(ARRAY) or (begin.startswith(PICKLE) and begin[1:2] <= b"\x05")


def _is_saved_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise RecordError(
            f"{path} is a zip archive that is damaged or cut short: unpack or copy it again"
        ) from error
    if any(name.startswith("xl/") or name == "content.xml" for name in names):
        raise RecordError(f"{path} is a spreadsheet: save it as CSV, and give that")
    leaves = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in leaves or (leaves and all(leaf.endswith(".npy") for leaf in leaves)):
        return True
    raise RecordError(f"{path} is a zip archive: unpack it, and give the log in it")
