"""What kind of file a checkpoint is, and the objects in it, loaded without running its code.

`torch.load(weights_only=True)` is the only loader: it restores tensors, plain containers and what
the allow-list names, and refuses all else. What it refuses is refused here too, by name.
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from trainscope.errors import CheckpointError
from trainscope.networks.readers.allow_list import ALLOWED, allowed_names
from trainscope.networks.readers.archive_names import named_in_archive
from trainscope.networks.readers.class_names import is_harmless_class
from trainscope.networks.readers.pickle_names import named_in
from trainscope.networks.readers.vetting import check_pickles

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that opens old torch files
_SCRIPT, _EXPORT = "constants.pkl", "archive_format"
"""Files that only an archive of TorchScript, or of torch.export, has."""

_PLAIN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch(\.storage)?\.\w+Storage|torch\.(Size|device|[a-z]+\d+)"
    r"|torch\.nn\.parameter\.Parameter|collections\.OrderedDict|(__builtin__|builtins)\.set"
)  # what torch.save writes of tensors and plain containers
_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"<!DO": "a web page and not what was to be downloaded",
    b"<htm": "a web page and not what was to be downloaded",
    b"PK\x05\x06": "an empty zip archive",
}


class NeedsCodeError(CheckpointError):
    """A file that holds objects of classes which torch's safe loader does not restore."""


class ScriptError(CheckpointError):
    """A TorchScript archive, with sizes that were checked."""


class ExportError(CheckpointError):
    """A torch.export archive, with sizes that were checked."""


def load(path: Path) -> object:
    """Return the objects in a checkpoint file, tensors on the CPU and memory-mapped where possible.

    Nothing in the file is run. The file is opened for reading only.

    Raises:
        CheckpointError: The file is missing, empty, damaged, of another kind, or would have to run
            code to load. The message does not name the path; `open_checkpoint` puts it in front.
    """
    head = first_bytes(path)
    if head.startswith(_ZIP):
        _check_archive(path)
        check_pickles(path, archive=True)
        return _load(path, mmap=True)
    if head.startswith(_LEGACY):
        check_pickles(path, archive=False)
        return _load(path, mmap=False)
    raise CheckpointError(_what_else(path, head))


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file that can be read.

    Raises:
        CheckpointError: It is missing, empty, no regular file, or cannot be read.
    """
    if not path.exists():
        what = "a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise CheckpointError(f"there is {what}; check the path")
    if path.is_dir():
        raise CheckpointError("this is a folder; give the checkpoint file in it")
    if not path.is_file():
        raise CheckpointError("this is not a regular file; give a checkpoint file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"the file cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError("the file is empty; whatever wrote it did not finish")
    return head


def _check_archive(path: Path) -> None:
    """Refuse an archive that is cut short, not a checkpoint's, or larger inside than outside."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error
    leaves = _leaves(entries)
    exported = _EXPORT in leaves
    if "data.pkl" not in leaves and not exported:
        raise CheckpointError("this is a zip archive and not a checkpoint that torch.save wrote")
    script = _SCRIPT in leaves  # its code is compressed, and is not read
    read = [e for e in entries if not script or "/data" in e.filename]
    declared = sum(entry.file_size for entry in read)
    if declared > path.stat().st_size or any(entry.compress_type for entry in read):
        raise CheckpointError(
            f"the file declares {declared:,} bytes and has {path.stat().st_size:,}; torch.save "
            "does not compress, so it is not taken"
        )
    if exported:
        raise ExportError("this is a torch.export archive; only its weights are read")
    if script:
        raise ScriptError("this is a TorchScript archive, which is code; only its weights are read")


def _leaves(entries: list[zipfile.ZipInfo]) -> set[str]:
    return {entry.filename.rpartition("/")[2] for entry in entries}


def check_names(path: Path, names: Iterable[str] = ()) -> None:
    """Refuse an archive of which only the weights are read, for what its pickles name beside them.

    Args:
        path: An archive of TorchScript or torch.export.
        names: More that it is known to name.

    Raises:
        NeedsCodeError: It names what is neither plain nor a library's class, such as `os.system`.
        CheckpointError: It is damaged.
    """
    try:
        found = dict.fromkeys((*names, *named_in_archive(path)))
    except Exception as error:  # a damaged file can fail anywhere
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error
    others = [name for name in found if not (_is_harmless(name) or is_harmless_class(name))]
    if others:
        raise _needs_code(others)


def _needs_code(names: list[str]) -> NeedsCodeError:
    shown = ", ".join(names[:4]) + (", and more" if len(names) > 4 else "")
    return NeedsCodeError(
        f"the file holds Python objects ({shown}) that could only be loaded by running code, which "
        "is not done; where it is your own, load it yourself and save its `state_dict()`"
    )


def _load(path: Path, *, mmap: bool) -> object:
    try:
        # The allow-list is torch's own, process-wide; it is put back at once.
        with safe_globals(list(ALLOWED)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            return loaded
    except OSError as error:
        raise CheckpointError(f"the file cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can fail anywhere in the unpickler
        names = _refused(path, mmap) if isinstance(error, pickle.UnpicklingError) else []
        if names:
            raise _needs_code(names) from error
        if "Unsupported operand" in str(error):
            raise CheckpointError(
                "the file is pickled in a way that torch's safe loader does not read; write it "
                "again with torch.save and its default protocol"
            ) from error
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error


def classes_named(path: Path) -> tuple[str, ...]:
    """Return the classes and functions that loading a file in full would look up and run.

    Nothing is loaded; tensors and plain values are not listed.

    Raises:
        CheckpointError: The file cannot be read.
    """
    head = first_bytes(path)
    if head.startswith((_ZIP, _LEGACY)):
        return tuple(_refused(path, head.startswith(_ZIP)))
    if head[:1] != b"\x80":
        return ()
    try:
        with path.open("rb") as file:
            names = named_in(file)
    except Exception:  # a damaged pickle has no names that can be relied on
        return ()
    return tuple(name for name in names if not _is_harmless(name))


def _refused(path: Path, archive: bool) -> list[str]:
    """Return the classes and functions in a checkpoint that the safe loader does not restore."""
    try:
        if archive:
            return _refused_in_archive(path)
        with path.open("rb") as file:
            # An old file is a row of pickles: magic number, version, system, objects, storages.
            names = [name for _ in range(4) for name in named_in(file)]
    except Exception:  # a damaged pickle has no names that can be relied on
        return []
    return [name for name in names if not _is_harmless(name)]


def _refused_in_archive(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        weights_only = _leaves(archive.infolist()) & {_SCRIPT, _EXPORT}
    if weights_only:
        return [name for name in named_in_archive(path) if not _is_harmless(name)]
    try:
        with safe_globals(list(ALLOWED)):
            return sorted(get_unsafe_globals_in_checkpoint(path))
    except (ValueError, pickle.UnpicklingError):  # a protocol that torch does not read
        with zipfile.ZipFile(path) as archive:
            pickled = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            names = named_in(io.BytesIO(archive.read(pickled)))
        return [name for name in names if not _is_harmless(name)]


def _is_harmless(name: str) -> bool:
    return name in allowed_names() or _PLAIN.fullmatch(name) is not None


def _what_else(path: Path, head: bytes) -> str:
    for start, what in _OTHERS.items():
        if head.lower().startswith(start.lower()):
            return f"this is {what}"
    if head[:1] == b"\x80":
        return "this is a pickle that torch.save did not write; only running code could load it"
    if _is_text(head):
        return "this is a text file and not a checkpoint; give a file that torch.save wrote"
    return "this is not a checkpoint; give a file that torch.save wrote"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
