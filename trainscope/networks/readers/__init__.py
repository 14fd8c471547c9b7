"""Checkpoint formats, one a file. Each is a module with `recognises` and `read`.

A new format is one file and one line in READERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainscope.errors import CheckpointError
from trainscope.networks.readers import (
    bare,
    cfg_pruned,
    exported,
    folder,
    imagenet_example,
    lightning,
    own,
    safetensors_file,
    timm,
    torchscript,
    torchvision_reference,
    whole_module,
    wrapped,
)
from trainscope.networks.readers.class_names import is_harmless_class
from trainscope.networks.readers.container import (
    ExportError,
    NeedsCodeError,
    ScriptError,
    first_bytes,
    load,
)
from trainscope.networks.readers.contents import Contents, Reader
from trainscope.networks.readers.inert import load_inert
from trainscope.networks.readers.stored import check_stored

__all__ = ["READERS", "Contents", "Reader", "contents_of"]

READERS: tuple[Reader, ...] = (
    own,
    torchvision_reference,
    timm,
    lightning,
    cfg_pruned,
    imagenet_example,
    wrapped,
    bare,
)
"""The formats, in the order in which a file is matched with them."""


def contents_of(path: Path) -> Contents:
    """Return what is in a checkpoint file, running nothing in it.

    Raises:
        CheckpointError: It cannot be loaded, or is of no known format. The message does not name
            the path.
    """
    if path.is_dir():
        return folder.read(path)
    if path.is_file() and safetensors_file.is_safetensors(first_bytes(path)):
        return safetensors_file.read(path)
    try:
        obj = load(path)
    except ExportError:
        return exported.read(path)
    except ScriptError:
        return torchscript.read(path)
    except NeedsCodeError as error:
        return _inert_contents(path, error)
    reader = next((each for each in READERS if each.recognises(obj)), None)
    if reader is None:
        raise CheckpointError(
            f"the file holds no network's weights: {_what(obj)}; give a state dict"
        )
    contents = reader.read(obj)
    check_stored(contents.state_dict, path)
    return contents


def _inert_contents(path: Path, error: NeedsCodeError) -> Contents:
    """Return what is in a file whose classes are not restored, if it is a network's tree."""
    obj, names = load_inert(path)
    if any(not is_harmless_class(name) for name in names) or not whole_module.recognises(obj):
        raise error
    return whole_module.read(obj)


def _what(obj: object) -> str:
    if isinstance(obj, Mapping):
        keys = ", ".join(repr(key) for key in list(obj)[:5]) + (", ..." if len(obj) > 5 else "")
        return f"it is a dictionary of {keys}" if obj else "it is an empty dictionary"
    return f"it is a {type(obj).__name__}"
