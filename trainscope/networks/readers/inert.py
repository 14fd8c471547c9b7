"""A whole pickled object, read with inert stand-ins for every class: none of its code runs.

The unpickler knows how to rebuild tensors and plain containers; every other class or function that
a file names becomes a stand-in that only keeps what it is given. So the tree of a pickled network,
with its tensors and settings, comes back without importing anything.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.readers.vetting import check_pickles

_DAMAGED = "the file is damaged or cut short; copy or download it again"


class Inert:
    """An object of a class that was not imported.

    Attributes:
        named: "module.name" of its class.
        given: What it was made with.
        state: What its pickle sets on it.
        items: What its pickle puts into it as a container.
    """

    named: ClassVar[str] = ""

    def __new__(cls, *given: object, **_: object) -> Inert:
        """Keep what the object is made with."""
        made = super().__new__(cls)
        made.given, made.state, made.items = given, {}, {}
        return made

    given: tuple[object, ...]
    state: dict[str, Any]
    items: dict[Any, Any]

    def __init__(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        if isinstance(state, tuple) and len(state) == 2:  # the state and that of its slots
            state = {**(state[0] or {}), **(state[1] or {})}
        self.state = state if isinstance(state, dict) else {"": state}

    def __setitem__(self, key: object, value: object) -> None:
        """Keep an item."""
        self.items[key] = value

    def append(self, value: object) -> None:
        """Keep an element."""
        self.items[len(self.items)] = value

    def extend(self, values: list[object]) -> None:
        """Keep elements."""
        for value in values:
            self.append(value)


class Storage:
    """The bytes of one storage, of which tensors are views."""

    def __init__(self, dtype: torch.dtype, data: bytearray) -> None:
        self.dtype, self.data = dtype, data

    def view(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Return a tensor in it.

        Raises:
            ValueError: The tensor would reach beyond it.
        """
        count = len(self.data) // self.dtype.itemsize
        reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        empty = 0 in size
        if min((offset, *size, *stride), default=0) < 0 or (not empty and reach >= count):
            raise ValueError("a tensor reaches beyond its storage")
        if empty:
            return torch.empty(size, dtype=self.dtype)
        flat = torch.frombuffer(self.data, dtype=self.dtype)
        return flat.as_strided(size, stride, offset)


def _tensor(storage: object, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return storage.view(int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _reconstructed(kind: Callable[..., Any], *_: object) -> object:
    return kind()


class _Call:
    """A function for a pickle to call; made anew for each, since a pickle may set attributes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)


_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
}
_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "builtins.set": set,
    "__builtin__.set": set,
}
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "Untyped": torch.uint8,
    }.items()
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, storage: Callable[[tuple[Any, ...]], Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self._storage = storage
        self.kinds: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what rebuilds tensors and containers, and a stand-in for everything else."""
        full = f"{module}.{name}"
        if full in _MAKERS:
            return _Call(_MAKERS[full])
        if full in _KNOWN:
            return _KNOWN[full]
        leaf = name.rpartition(".")[2]
        if module.split(".")[0] == "torch" and leaf in _STORAGES:
            return _STORAGES[leaf]
        if full.startswith("torch.") and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if full not in self.kinds:
            self.kinds[full] = type(leaf, (Inert,), {"named": full})
        return self.kinds[full]

    def persistent_load(self, pid: Any, /) -> Any:
        """Return a storage; older files also put a class's source beside it, which is not read."""
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("an unknown persistent id")
        return self._storage(pid)


def load_inert(path: Path) -> tuple[object, tuple[str, ...]]:
    """Return the objects of a checkpoint that torch.save wrote, and the classes stood in for.

    Args:
        path: A zip archive whose declared sizes were checked, or a file of the older layout.

    Returns:
        The objects, and "module.name" of every class and function that was not imported.

    Raises:
        CheckpointError: The file is damaged, or declares more than it holds.
    """
    archive = zipfile.is_zipfile(path)
    check_pickles(path, archive=archive)
    try:
        if archive:
            return _from_archive(path)
        return _from_row(path)
    except RecursionError as error:
        raise CheckpointError("the file nests its objects too deeply; it is not taken") from error
    except Exception as error:  # a damaged file can fail anywhere in the unpickler
        raise CheckpointError(_DAMAGED) from error


def _from_archive(path: Path) -> tuple[object, tuple[str, ...]]:
    with zipfile.ZipFile(path) as archive:
        pickled = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
        root = pickled.removesuffix("data.pkl")
        held: dict[str, Storage] = {}

        def storage(pid: tuple[Any, ...]) -> Storage:
            _, dtype, key, _, count = pid[:5]
            if key not in held:
                data = bytearray(archive.read(f"{root}data/{key}"))
                if len(data) < int(count) * dtype.itemsize:
                    raise ValueError("a storage is shorter than it says")
                held[key] = Storage(dtype, data)
            return held[key]

        unpickler = _Unpickler(io.BytesIO(archive.read(pickled)), storage)
        return unpickler.load(), tuple(unpickler.kinds)


def _from_row(path: Path) -> tuple[object, tuple[str, ...]]:
    """Read the older layout: magic number, version, system, objects, keys, then the storages."""
    held: dict[str, Storage] = {}
    left = path.stat().st_size

    def storage(pid: tuple[Any, ...]) -> Storage:
        nonlocal left
        _, dtype, key, _, count = pid[:5]
        if key not in held:
            left -= int(count) * dtype.itemsize
            if left < 0 or int(count) < 0:
                raise ValueError("the storages are larger than the file")
            held[key] = Storage(dtype, bytearray(int(count) * dtype.itemsize))
        return held[key]

    with path.open("rb") as file:
        for _ in range(3):
            _Unpickler(file, storage).load()
        unpickler = _Unpickler(file, storage)
        loaded = unpickler.load()
        for key in _Unpickler(file, storage).load():
            count = int.from_bytes(file.read(8), "little")
            target = held[key].data
            if count * held[key].dtype.itemsize != len(target) or file.readinto(target) != len(
                target
            ):
                raise ValueError("a storage is cut short")
    return loaded, tuple(unpickler.kinds)
