"""A network together with what a probe or an action must know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainscope.errors import DataError
from trainscope.networks.example import Example, Inputs
from trainscope.records import PrunedBefore, Shown
from trainscope.task.trees import flattened


@dataclass(frozen=True)
class Remembered:
    """What training left in a checkpoint, None where it left nothing.

    Attributes:
        data: The data set, as `--data` takes it.
        schedule: The LR schedule, like "0:1e-2,15:1e-3".
        epochs: Epochs done.
        seed: The seed of the training.
        accuracy: Test accuracy at the end, percent.
    """

    data: str | None = None
    schedule: str | None = None
    epochs: int | None = None
    seed: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Hub:
    """How transformers describes a network.

    Attributes:
        config: What its `config.json` holds, with the class under "architectures".
        folder: Where its tokenizer lies; empty where that is not known.
    """

    config: Mapping[str, Any]
    folder: str = ""


@dataclass(frozen=True)
class Network(Shown):
    """An opened network.

    Attributes:
        module: The network, in eval mode, on the CPU unless it was moved.
        architecture: Its name in the registry, or "package.module:factory".
        input_shape: The shape of one input, (C, H, W).
        num_classes: The width of its logits; None where it does not tell classes apart.
        recognised: How the architecture was found, in a few words.
        format: The format of the file it came from.
        remembered: What training left in the file.
        notes: What a person should be told about how it was opened, each one sentence.
        geometry: Classes and settings of layers that are not the architecture's own, by name.
        before: What had been pruned in it before it was opened.
        example: A call of it, where its inputs are not one floating-point tensor.
        hub: How transformers describes it, where its class is one of transformers.
    """

    module: nn.Module
    architecture: str
    input_shape: tuple[int, ...]
    num_classes: int | None
    recognised: str = ""
    format: str = ""
    remembered: Remembered = field(default_factory=Remembered)
    notes: tuple[str, ...] = ()
    geometry: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    before: tuple[PrunedBefore, ...] = ()
    example: Example | None = None
    hub: Hub | None = None

    @property
    def inputs(self) -> Inputs:
        """What its forward pass can be tried on: an example of a call, or the shape of an input."""
        return self.input_shape if self.example is None else self.example

    def __repr__(self) -> str:
        """Return one line: the architecture, its inputs and its classes."""
        shape = "x".join(map(str, self.input_shape))
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"<Network {self.architecture}, inputs {shape}{classes}>"


def check_classes(network: Network, classes: int, data: str) -> None:
    """Raise unless data has as many classes as the network has logits.

    Args:
        network: The opened network.
        classes: Number of classes in the data.
        data: The data's name, for the message.

    Raises:
        DataError: The counts differ.
    """
    if network.num_classes is not None and classes != network.num_classes:
        way = (
            ", or put its folders at the network's outputs with --class-index"
            if data.startswith("imagefolder:") and classes < network.num_classes
            else ""
        )
        raise DataError(
            f"{data} has {classes} classes and the network gives {network.num_classes} logits; "
            f"choose the data that the network was trained on with --data{way}"
        )


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a network's weights and buffers, by name: its identity.

    Two networks have one digest exactly if every tensor of their state dicts has the same name,
    shape, dtype and bits. The device does not matter. Nothing is copied but what is elsewhere than
    in the CPU's memory, or not in its order there: one tensor at a time.
    """
    hasher = hashlib.sha256()
    for name, held in sorted(module.state_dict().items()):
        for tensor in [held] if isinstance(held, Tensor) else flattened(held)[0]:
            if not isinstance(tensor, Tensor):  # of a module's extra state
                hasher.update(f"{name}|{tensor!r}|".encode())
                continue
            dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
            flat = dense.detach().cpu().contiguous()
            hasher.update(f"{name}|{flat.dtype}|{tuple(flat.shape)}|".encode())
            hasher.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
