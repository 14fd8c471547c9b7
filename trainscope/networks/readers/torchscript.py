"""A TorchScript archive: its weights are read, its code is neither compiled nor run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.readers.container import check_names
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.inert import Inert, load_inert

MOST_MODULES = 100_000


def read(path: Path) -> Contents:
    """Return the weights of an archive whose declared sizes were checked.

    Raises:
        CheckpointError: It is damaged, holds no network, or names what only code could load.
    """
    network, names = load_inert(path)
    check_names(path, names)
    tensors = _tensors(network)
    if not tensors:
        raise CheckpointError(
            "this TorchScript archive holds no weights by name; give a state dict"
        )
    return Contents(
        state_dict=tensors,
        format="TorchScript archive",
        notes=(
            "Only the weights of the TorchScript archive were read: the network is rebuilt from "
            "them, and what is pruned is not TorchScript any more.",
        ),
    )


def _tensors(network: object) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    waiting, seen = [("", network)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1
        if seen > MOST_MODULES:
            raise CheckpointError("the file nests its modules without end; it is not taken")
        if not isinstance(module, Inert) or not module.named.startswith("__torch__."):
            continue
        for name, value in module.state.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Inert):
                waiting.append((f"{prefix}{name}.", value))
    return found
