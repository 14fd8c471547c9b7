"""A bare `.safetensors` file: tensors by name, memory-mapped, and no code at all."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.readers.contents import Contents

FORMAT = "safetensors file"


def is_safetensors(head: bytes) -> bool:
    """Say whether the first bytes of a file are a safetensors header's."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 100_000_000


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, memory-mapped.

    Raises:
        CheckpointError: The file is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error


def read(path: Path) -> Contents:
    """Return what is in a file."""
    return Contents(state_dict=tensors_of(path), format=FORMAT)
