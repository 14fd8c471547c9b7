"""What a reader finds in a checkpoint, and what a reader is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from trainscope.networks.described import Described
from trainscope.networks.network import Hub, Remembered

State = Mapping[str, Tensor | Described]
"""Tensors by name; those of kinds that are not built are described."""

Geometry = Mapping[str, Mapping[str, object]]
"""Class (under KIND) and plain settings, such as a stride, by the name of a layer."""

KIND = "class"
"""No setting of a layer is called so, since it is a word of Python's own."""


def is_plain(value: object) -> bool:
    """Say whether a setting is a number, a word, or a short tuple of such."""
    if isinstance(value, tuple | list):
        return len(value) <= 8 and all(is_scalar(each) for each in value)
    return is_scalar(value)


def is_scalar(value: object) -> bool:
    """Say whether a setting is a number, a word, or None."""
    return value is None or isinstance(value, bool | int | float | str)


@dataclass(frozen=True)
class Contents:
    """What was found in a checkpoint.

    Attributes:
        state_dict: Tensors by name, as the file has them.
        format: The format, in the words shown to a person.
        architecture: The architecture's name where the file says it; it need not be one of ours.
        num_classes: Width of the logits where the file says it.
        input_shape: Shape of one input where the file says it.
        remembered: What training left in the file.
        geometry: Classes and settings of layers, where the file has them.
        classes: Classes and functions that loading the file in full would run, "module.name" each.
        notes: What a person should be told, each one sentence.
        hub: How transformers describes the network, where it is one of its classes.
        others: The other state dicts of the file by their key, with their own masks.
    """

    state_dict: State
    format: str
    architecture: str | None = None
    num_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    remembered: Remembered = field(default_factory=Remembered)
    notes: tuple[str, ...] = ()
    geometry: Geometry = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    hub: Hub | None = None
    others: Mapping[str, Contents] = field(default_factory=dict)


class Reader(Protocol):
    """One format: a module with these two functions. Neither changes the object."""

    def recognises(self, obj: object) -> bool:
        """Say whether loaded objects are of this format."""

    def read(self, obj: object) -> Contents:
        """Return what is in objects of this format.

        Raises:
            CheckpointError: They are of this format and cannot be used.
        """
