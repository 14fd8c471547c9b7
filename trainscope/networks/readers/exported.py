"""A torch.export archive (`.pt2`): its weights are read, its graph is not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.readers.container import check_names
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.tensors import Storage

CONFIG = "weights/model_weights_config.json"
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""The numbers that torch.export's schema gives to types."""


def read(path: Path) -> Contents:
    """Return the weights of an archive whose declared sizes were checked.

    Raises:
        CheckpointError: It is damaged, keeps its weights in another way, or names what only code
            could load.
    """
    classes = check_names(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(CONFIG))
            folder = name.rpartition("/")[0]
            entries = json.loads(archive.read(name))["config"]
            held: dict[str, Storage] = {}  # two weights may share one: it is read once
            tensors = {key: _tensor(archive, folder, e, held) for key, e in entries.items()}
    except StopIteration as error:
        raise CheckpointError(
            "this torch.export archive keeps its weights in another way than torch 2.14 does; save "
            "`module.state_dict()` instead"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can fail anywhere
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error
    return Contents(
        state_dict=tensors,
        format="torch.export archive",
        classes=classes,
        notes=(
            "Only the weights of the torch.export archive were read: the network is rebuilt from "
            "them, and what is pruned is no exported graph any more.",
        ),
    )


def _tensor(
    archive: zipfile.ZipFile, folder: str, entry: dict[str, Any], held: dict[str, Storage]
) -> Tensor:
    if entry["use_pickle"]:
        raise CheckpointError(
            "this torch.export archive pickles a weight rather than storing it; save "
            "`module.state_dict()` instead"
        )
    meta = entry["tensor_meta"]
    size, stride = (tuple(int(n["as_int"]) for n in meta[key]) for key in ("sizes", "strides"))
    offset, name = int(meta["storage_offset"]["as_int"]), entry["path_name"]
    if name not in held:
        data = bytearray(archive.read(f"{folder}/{name}"))
        held[name] = Storage(DTYPES[meta["dtype"]], data)
    return held[name].view(offset, size, stride)
