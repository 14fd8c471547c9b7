"""A TorchScript archive: its weights are read, its code is neither compiled nor run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks.described import Described
from trainscope.networks.readers.container import load_script
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.inert import Inert, Nesting


def read(path: Path) -> Contents:
    """Return the weights of an archive whose declared sizes were checked.

    Raises:
        CheckpointError: It is damaged, holds no network, or names what only code could load.
    """
    loaded = load_script(path)
    tensors = _tensors(loaded.objects)
    if not tensors:
        raise CheckpointError(
            "this TorchScript archive holds no weights by name; give a state dict"
        )
    return Contents(
        state_dict=tensors,
        format="TorchScript archive",
        classes=loaded.classes,
        notes=(
            "Only the weights of the TorchScript archive were read: the network is rebuilt from "
            "them, and what is pruned is not TorchScript any more.",
        ),
    )


def _tensors(network: object) -> dict[str, Tensor | Described]:
    found: dict[str, Tensor | Described] = {}
    waiting, nesting = [("", network)], Nesting()
    while waiting:
        prefix, module = waiting.pop()
        nesting.enter(prefix, len(module.state) if isinstance(module, Inert) else 0)
        if not isinstance(module, Inert) or not module.named.startswith("__torch__."):
            continue
        for name, value in module.state.items():
            if isinstance(value, Tensor | Described):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Inert):
                waiting.append((f"{prefix}{name}.", value))
    return found
