"""What kind of file a checkpoint is, and the objects in it, loaded without running its code.

The pickle of a checkpoint is carried out here (`machine`) and not by Python's or torch's unpickler:
it makes tensors, plain values, and stand-ins for every class.
"""

from __future__ import annotations

import codecs
import mmap
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from trainscope.errors import CheckpointError
from trainscope.networks.readers.archive import (
    DAMAGED,
    check_declared,
    entries_of,
    load_archive,
)
from trainscope.networks.readers.archive_names import named_in_archive
from trainscope.networks.readers.class_names import is_harmless_class
from trainscope.networks.readers.numpy_archive import is_arrays
from trainscope.networks.readers.pickle_machine import Machine
from trainscope.networks.readers.pickle_names import named_in
from trainscope.networks.readers.pickled_values import PLAIN_NAMES
from trainscope.networks.readers.row import load_row
from trainscope.networks.readers.tensors import Storage
from trainscope.records.text import shortened

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # opens torch's files of the older layout
ROW = tuple(pickle.dumps(_MAGIC, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
_SCRIPT, _EXPORT = "constants.pkl", "archive_format"
"""Files that only an archive of TorchScript, or of torch.export, has."""

_PLAIN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type(_v2)?"
    r"|torch(\.storage)?\.\w+Storage|torch\.(device|serialization\._get_layout|[a-z]+\d\w*|bool)"
    r"|torch\.nn\.parameter\.Parameter|torch\.(Tensor|per_\w+)|pathlib(\._local)?\.\w+"
    r"|argparse\.Namespace"
)  # what torch.save writes of tensors and plain values
_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"<!DO": "a web page and not what was to be downloaded",
    b"<htm": "a web page and not what was to be downloaded",
    b"PK\x05\x06": "an empty zip archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"GGUF": "a GGUF file of a language model",
    b"\x93NUMPY": "one array of NumPy's; give np.savez's archive of all weights by name",
}


class NeedsCodeError(CheckpointError):
    """A file that holds objects which only code of its own could load.

    Attributes:
        classes: "module.name" of what it names, in order.
    """

    def __init__(self, message: str, classes: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.classes = tuple(classes)


class ScriptError(CheckpointError):
    """A TorchScript archive, with sizes that were checked."""


class ArraysError(CheckpointError):
    """An archive of numpy's arrays."""


class ExportError(CheckpointError):
    """A torch.export archive, with sizes that were checked."""


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint file holds.

    Attributes:
        objects: Tensors and plain values; stand-ins for objects of all other classes.
        classes: What loading it in full would look up and run, "module.name" each.
    """

    objects: object
    classes: tuple[str, ...]


def load(path: Path) -> Loaded:
    """Return the objects in a checkpoint file, tensors on the CPU and memory-mapped where possible.

    Nothing in the file is run. The file is opened for reading only.

    Raises:
        CheckpointError: The file is missing, empty, damaged, of another kind, or names what no
            network needs, such as `os.system`. The message does not name the path;
            `open_checkpoint` puts it in front.
    """
    head = first_bytes(path)
    if head.startswith(_ZIP):
        entries = entries_of(path)
        _check_kind(entries, path)
        return _guarded(lambda: load_archive(path, entries))
    if head.startswith(ROW):
        return _guarded(lambda: load_row(path))
    what = _what_else(path, head)
    names = _named_in_pickle(path) if head[:1] == b"\x80" else ()
    raise NeedsCodeError(what, names) if names else CheckpointError(what)


def load_pickle(path: Path, start: int = 0) -> Loaded:
    """Return the objects of a pickle that torch did not write, as `load` does.

    Args:
        path: The file.
        start: Bytes before the pickle.

    Raises:
        CheckpointError: It is damaged, or names what is neither plain nor a library's class.
    """

    def read() -> tuple[object, tuple[str, ...]]:
        def storage(_: tuple[object, ...]) -> Storage:
            raise ValueError("a storage outside of torch's files")

        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            whole.seek(start)
            machine = Machine(cast(IO[bytes], whole), len(whole), storage)
            return machine.run(), tuple(machine.names)

    return _guarded(read)


def load_script(path: Path) -> Loaded:
    """Return the tree of modules in a TorchScript archive.

    Raises:
        CheckpointError: It is damaged, or a pickle of it names what only code could load.
    """
    entries = entries_of(path)
    check_declared(entries, path.stat().st_size, script=True)
    return Loaded(_guarded(lambda: load_archive(path, entries)).objects, check_names(path))


def _guarded(read: Callable[[], tuple[object, tuple[str, ...]]]) -> Loaded:
    try:
        objects, names = read()
    except CheckpointError:
        raise
    except RecursionError as error:
        raise CheckpointError("the file nests its objects too deeply; it is not taken") from error
    except Exception as error:  # a damaged file can fail anywhere
        raise CheckpointError(DAMAGED) from error
    classes = tuple(name for name in names if not is_plain_name(name))
    if any(not is_harmless_class(name) for name in classes):
        raise needs_code(classes)
    return Loaded(objects, classes)


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file that can be read.

    Raises:
        CheckpointError: It is missing, empty, no regular file, or cannot be read.
    """
    try:
        if not path.exists():
            what = "a link to a file that does not exist" if path.is_symlink() else "no such file"
            raise CheckpointError(f"there is {what}; check the path")
        if path.is_dir():
            raise CheckpointError("this is a folder; give the checkpoint file in it")
        if not path.is_file():
            raise CheckpointError("this is not a regular file; give a checkpoint file")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:  # also a name that is too long, or a link that leads to itself
        raise CheckpointError(f"the file cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError("the file is empty; whatever wrote it did not finish")
    return head


def _check_kind(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """Tell apart the archives of torch, and refuse one that is larger inside than outside."""
    leaves = {entry.filename.rpartition("/")[2] for entry in entries}
    exported, script = _EXPORT in leaves, _SCRIPT in leaves
    if is_arrays(entries):
        raise ArraysError("this is an archive of numpy's arrays; they are read by name")
    if "data.pkl" not in leaves and not exported:
        raise CheckpointError("this is a zip archive and not a checkpoint that torch.save wrote")
    check_declared(entries, path.stat().st_size, script=script)
    if exported:
        raise ExportError("this is a torch.export archive; only its weights are read")
    if script:
        raise ScriptError("this is a TorchScript archive, which is code; only its weights are read")


def check_names(path: Path) -> tuple[str, ...]:
    """Return what the pickles name in an archive of which only the weights are read.

    Args:
        path: An archive of TorchScript or torch.export.

    Raises:
        NeedsCodeError: It names what is neither plain nor a library's class, such as `os.system`.
        CheckpointError: It is damaged.
    """
    try:
        found = dict.fromkeys(named_in_archive(path))
    except Exception as error:  # a damaged file can fail anywhere
        raise CheckpointError(DAMAGED) from error
    classes = tuple(name for name in found if not is_plain_name(name))
    if any(not is_harmless_class(name) for name in classes):
        raise needs_code(classes)
    return classes


def needs_code(classes: Iterable[str]) -> NeedsCodeError:
    """Return the refusal of a file that names what only code could load, by the worst of them."""
    classes = tuple(classes)
    names = [name for name in classes if not is_harmless_class(name)] or classes
    shown = ", ".join(shortened(name) for name in names[:4])
    more = ", and more" if len(names) > 4 else ""
    return NeedsCodeError(
        f"the file holds Python objects ({shown}{more}) that could only be loaded by running code, "
        "which is not done; where it is your own, load it yourself and save its `state_dict()`",
        classes,
    )


def is_plain_name(name: str) -> bool:
    """Say whether a name stands for a tensor or a plain value, which no code has to make."""
    return name in PLAIN_NAMES or _PLAIN.fullmatch(name) is not None


def _named_in_pickle(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            names = named_in(cast(IO[bytes], whole))
    except Exception:  # a damaged pickle has no names that can be relied on
        return ()
    return tuple(name for name in names if not is_plain_name(name))


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
