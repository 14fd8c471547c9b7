"""Tensors that a pickle makes without bytes in the file: found before they are copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainscope.errors import CheckpointError


def check_stored(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a state dict whose memory is larger than the file that it came from.

    `torch.save` stores every byte as it is. A pickle can also ask torch for empty tensors of any
    size; they take no memory until they are first written, so this comes before that.

    Args:
        state: As it was loaded.
        path: The file.

    Raises:
        CheckpointError: The storages of the tensors have more bytes than the file.
    """
    storages = {}
    for value in state.values():
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    declared, held = sum(storages.values()), path.stat().st_size
    if declared > held:
        raise CheckpointError(
            f"the tensors declare {declared:,} bytes and the file has {held:,}; torch.save does "
            "not compress, so it is not taken"
        )
