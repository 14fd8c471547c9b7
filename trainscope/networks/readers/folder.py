"""A folder from a hub: `config.json` beside safetensors or `pytorch_model.bin`, whole or in shards.

A folder of torch's distributed checkpoints (`.metadata`, `*.distcp`) is told apart and refused: its
index is a pickle of classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainscope.errors import CheckpointError, RecordError
from trainscope.networks.network import Hub
from trainscope.networks.readers.container import first_bytes, load
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.readers.safetensors_file import is_safetensors, tensors_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.reading import text_of

CONFIG = "config.json"
WHOLE = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
ENDS = (".pt", ".pth", ".ckpt")
"""How the names of lone checkpoints end."""
SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
MOST_JSON = 64 * 2**20
"""Bytes of a configuration, or of an index of shards."""
_SHARD = re.compile(r"-\d+-of-\d+\.")


def read(path: Path) -> Contents:
    """Return the weights of a folder, and the architecture that its config names.

    Raises:
        CheckpointError: It is no such folder, or a file of it is missing or damaged.
    """
    whole = next((name for name in WHOLE if (path / name).is_file()), None)
    index = next((name for name in SHARDED if (path / name).is_file()), None)
    if whole is None and index is None:
        whole = _only(path, "*.safetensors") or _only(path, "pytorch_model*.bin")
        index = _only(path, "*.index.json")
    if whole is None and index is None:
        raise CheckpointError(_what_else(path))
    config = config_in(path)
    state = _tensors(path / whole) if whole is not None else _shards(path, str(index))
    name = config.get("architecture")
    return Contents(
        state_dict=state,
        format=f"Hugging Face folder ({whole or index})",
        architecture=name if isinstance(name, str) and ":" not in name else None,
        num_classes=whole_of(config.get("num_classes")),
        hub=Hub(config, str(path.absolute())) if is_config(config) else None,
    )


def config_in(path: Path) -> dict[str, Any]:
    """Return what is in a folder's `config.json`; nothing where it has none.

    Raises:
        CheckpointError: The file is damaged.
    """
    return _json(path / CONFIG) if (path / CONFIG).is_file() else {}


def is_config(config: Mapping[str, Any]) -> bool:
    """Tell whether a `config.json` is one of transformers."""
    return isinstance(config.get("model_type"), str)


def _only(folder: Path, pattern: str) -> str | None:
    """Return the name of the one file of a pattern that is no shard; of several, none is taken."""
    files = (each.name for each in folder.glob(pattern) if each.is_file())
    found = [name for name in files if not _SHARD.search(name)]
    return found[0] if len(found) == 1 else None


def _shards(folder: Path, index: str) -> dict[str, Tensor]:
    placed = _json(folder / index).get("weight_map")
    if not isinstance(placed, Mapping) or not placed:
        raise CheckpointError(f"{index} has no weight_map; download the folder again")
    state: dict[str, Tensor] = {}
    if not all(isinstance(shard, str) for shard in placed.values()):
        raise CheckpointError(f"{index} names a file by what is no word; download the folder again")
    for shard in dict.fromkeys(placed.values()):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names a file outside the folder; it is not taken")
        if not (folder / shard).is_file():
            raise CheckpointError(f"the shard {shard} is missing; download the folder again")
        state |= _tensors(folder / shard)
    missing = [name for name in placed if name not in state]
    if missing:
        raise CheckpointError(f"no shard has the tensor '{missing[0]}'; download the folder again")
    return state


def _tensors(file: Path) -> dict[str, Tensor]:
    # A pointer of Git LFS keeps the name of the file that it stands for: bytes tell, not the name.
    if is_safetensors(first_bytes(file)):
        return tensors_of(file)
    obj = load(file).objects
    if not is_state_dict(obj):
        raise CheckpointError(f"{file.name} holds no state dict; give the file that does")
    state: dict[str, Tensor] = dict(obj)  # type: ignore[call-overload]
    return state


def _json(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(text_of(file, MOST_JSON))
    except (RecordError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name} is damaged; download the folder again") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{file.name} is no JSON object; download the folder again")
    return read


def _checkpoints(path: Path) -> list[Path]:
    return sorted(each for end in ENDS for each in path.glob(f"*{end}") if each.is_file())


def _steps(path: Path) -> list[Path]:
    """Return the folder of the step that a file `latest` names (DeepSpeed), if there is one."""
    named = path / "latest"
    try:
        step = text_of(named, 1_000).strip() if named.is_file() else ""
    except RecordError:
        return []
    inner = path / step
    return [inner] if step and Path(step).name == step and inner.is_dir() else []


def _what_else(path: Path) -> str:
    if (path / ".metadata").is_file() or any(path.glob("*.distcp")):
        return (
            "this is a distributed checkpoint, whose index would have to run code to load; turn it "
            "into one file with torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    if any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin")):
        return (
            "this folder has several files of weights, or shards without an index, and none that "
            "is the whole network's by its name; give the checkpoint file in it"
        )
    lone = _checkpoints(path) or [each for inner in _steps(path) for each in _checkpoints(inner)]
    if lone and not (path / CONFIG).is_file():  # of a run, trainscope's or another's
        return f"this folder is no network as a hub has it; give the checkpoint in it: {lone[0]}"
    has = f"has a {CONFIG} and no" if (path / CONFIG).is_file() else f"has neither {CONFIG} nor"
    return (
        f"this folder {has} weights ({', '.join(WHOLE)}, or shards); give the folder of a network "
        f"as a hub has it, or the checkpoint file{f' in it: {lone[0]}' if lone else ''}"
    )
