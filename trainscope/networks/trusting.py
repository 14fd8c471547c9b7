"""A file that a person trusts, loaded in full: its code runs. Never done unless it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.foreign import working_directory
from trainscope.networks.checkpoint import open_checkpoint
from trainscope.networks.custom import Trial, open_custom
from trainscope.networks.hub import Head
from trainscope.networks.network import Network
from trainscope.networks.origin import noticed
from trainscope.networks.readers import contents_of
from trainscope.networks.readers.container import first_bytes
from trainscope.networks.readers.whole_module import KEYS
from trainscope.networks.state_dict import weights_of


def open_as_asked(
    path: str | os.PathLike[str],
    tell: Callable[[str], None],
    *,
    arch: str | None = None,
    model: str | None = None,
    unsafe_load: bool = False,
    part: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    trial: Trial | None = None,
    head: Head | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Open a checkpoint without running its code, or with it where that is asked for.

    Args:
        path: The file.
        tell: Told beforehand what will run.
        arch: As `open_checkpoint` takes it.
        model: Likewise.
        unsafe_load: Run the file's code.
        part: Which network, as `open_checkpoint` takes it.
        input_shape: Likewise.
        trial: Likewise.
        head: Likewise.
        dtype: Likewise.

    Raises:
        CheckpointError: As `open_checkpoint` or `open_trusting`; or an architecture is named for a
            file that brings its own.
    """
    if not unsafe_load:
        return open_checkpoint(
            path,
            arch=arch,
            model=model,
            input_shape=input_shape,
            part=part,
            trial=trial,
            head=head,
            dtype=dtype,
        )
    if arch is not None or model is not None or part is not None:
        raise CheckpointError(
            "--unsafe-load takes the network that the file brings: leave --arch, --model and "
            "--part out"
        )
    names = _classes(Path(path))
    tell(f"running the file's own code, as asked: {', '.join(names) or 'it names none'}")
    return open_trusting(path, input_shape=input_shape, trial=trial, dtype=dtype)


def open_trusting(
    path: str | os.PathLike[str],
    *,
    input_shape: tuple[int, ...] | None = None,
    trial: Trial | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Load a whole pickled network with its own classes, which runs the file's code.

    For a network whose class is no library's and whose code is the user's own. What would run is
    told beforehand by `open_as_asked`.

    Args:
        path: The file.
        input_shape: The shape of one input, (C, H, W); found by trying where it is not given.
        trial: As `open_checkpoint` takes it.
        dtype: Likewise.

    Raises:
        CheckpointError: The file cannot be loaded, or holds no network.
    """
    first_bytes(Path(path))
    try:
        with working_directory():
            obj = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # its code can fail in any way
        raise CheckpointError(
            f"{path}: its own code failed to load it: {type(error).__name__}: {error}"
        ) from error
    module = _network(obj)
    if module is None:
        raise CheckpointError(
            f"{path}: the file holds no whole network; open it without --unsafe-load"
        )
    while isinstance(module, nn.DataParallel):
        module = module.module
    kind = type(module)
    spec = f"{kind.__module__}:{kind.__qualname__}"
    try:
        weights = weights_of(module.state_dict(), dtype)
        opened = open_custom(spec, module.to(dtype), weights, input_shape, trial)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    network = Network(
        module=opened.module,
        architecture=spec,
        input_shape=opened.input_shape,
        num_classes=opened.num_classes,
        example=opened.example,
        recognised="--unsafe-load",
        format=f"whole pickled network ({kind.__module__}.{kind.__qualname__})",
        notes=("It was loaded with its own code, as --unsafe-load asked for.",),
    )
    return noticed(network)


def _classes(path: Path) -> tuple[str, ...]:
    try:
        return contents_of(path).classes
    except CheckpointError as error:
        classes: tuple[str, ...] = getattr(error, "classes", ())
        return classes


def _network(obj: object) -> nn.Module | None:
    if isinstance(obj, nn.Module):
        return obj
    if isinstance(obj, Mapping):
        return next((obj[k] for k in KEYS if isinstance(obj.get(k), nn.Module)), None)
    return None
