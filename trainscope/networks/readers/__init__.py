"""Checkpoint formats, one a file. Each is a module with `recognises` and `read`.

A new format is one file and one line in READERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainscope.errors import CheckpointError
from trainscope.networks.readers import (
    bare,
    cfg_pruned,
    exported,
    folder,
    imagenet_example,
    lightning,
    numpy_archive,
    own,
    safetensors_file,
    several,
    timm,
    torchscript,
    torchvision_reference,
    whole_module,
    wrapped,
)
from trainscope.networks.readers.archive import DAMAGED
from trainscope.networks.readers.container import (
    ROW,
    ArraysError,
    ExportError,
    Loaded,
    ScriptError,
    first_bytes,
    load,
    load_pickle,
    needs_code,
)
from trainscope.networks.readers.contents import Contents, Reader
from trainscope.networks.readers.from_numpy import with_tensors
from trainscope.networks.readers.inert import Named
from trainscope.networks.readers.numpy_values import Array
from trainscope.networks.readers.others import with_others
from trainscope.networks.state_dict import is_state_dict
from trainscope.networks.strangers import told_by_names
from trainscope.records.text import shortened

__all__ = ["READERS", "Contents", "Reader", "contents_of"]

READERS: tuple[Reader, ...] = (
    own,
    torchvision_reference,
    timm,
    lightning,
    cfg_pruned,
    imagenet_example,
    wrapped,
    whole_module,
    bare,
    several,
)
"""The formats, in the order in which a file is matched with them."""


MOST_DEPTH = 3
"""Keys over each other below which a state dict may stand."""


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
        loaded = load(path)
    except ArraysError:
        return numpy_archive.read(path)
    except ExportError:
        return exported.read(path)
    except ScriptError:
        return torchscript.read(path)
    except CheckpointError as error:
        loaded = _arrays_alone(path, error)
    obj = _with_tensors(loaded.objects)
    states = [each for each in obj if is_state_dict(each)] if isinstance(obj, list | tuple) else []
    reader, inner = (bare, states[0]) if len(states) == 1 else _reader(obj)
    if reader is not None:
        found = reader.read(inner)
        found = found if reader is own else with_others(found, inner)
        return replace(found, classes=loaded.classes)
    if loaded.classes:
        raise needs_code(loaded.classes)
    told = told_by_names(map(str, obj)) if isinstance(obj, Mapping) else ""
    if told:
        raise CheckpointError(f"the file holds no network's weights that can be measured: {told}")
    raise CheckpointError(f"the file holds no network's weights: {_what(obj)}; give a state dict")


def _arrays_alone(path: Path, error: CheckpointError) -> Loaded:
    """Return what a pickle holds that torch did not write, where it is numpy's arrays by name.

    Raises:
        CheckpointError: The one given: it is no such file.
    """
    if not path.is_file() or first_bytes(path)[:1] != b"\x80" or first_bytes(path).startswith(ROW):
        raise error
    try:
        loaded = load_pickle(path)
    except CheckpointError:
        raise error from None
    reader, _ = _reader(_with_tensors(loaded.objects))
    if reader is None or loaded.classes:
        raise error
    return loaded


def _with_tensors(objects: Any) -> Any:
    """Return what a file held with numpy's arrays as tensors.

    Raises:
        CheckpointError: An array's bytes do not make it.
    """
    try:
        return with_tensors(objects)
    except (TypeError, ValueError) as error:
        raise CheckpointError(DAMAGED) from error


def _reader(obj: object, depth: int = 0) -> tuple[Reader | None, object]:
    """Return the reader of objects, and of which: they may be the only ones below some keys."""
    reader = next((each for each in READERS if each.recognises(obj)), None)
    if reader is not None or depth == MOST_DEPTH or not isinstance(obj, Mapping):
        return reader, obj
    inside = [_reader(value, depth + 1) for value in obj.values() if isinstance(value, Mapping)]
    found = [(each, value) for each, value in inside if each is not None]
    return found[0] if len(found) == 1 else (None, obj)


def _what(obj: object) -> str:
    if isinstance(obj, Mapping):
        keys = ", ".join(shortened(repr(key), 60) for key in list(obj)[:5])
        more = ", ..." if len(obj) > 5 else ""
        if any(isinstance(value, Array) for value in obj.values()):
            more += ", with numpy's arrays (make tensors of them: torch.from_numpy)"
        return f"it is a dictionary of {keys}{more}" if obj else "it is an empty dictionary"
    kind = "class" if isinstance(obj, Named) else type(obj).__name__
    return f"it is a {kind}"
