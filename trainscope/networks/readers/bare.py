"""A bare state dict: `torch.save(module.state_dict(), path)`, with an epoch or the like in it."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.contents import Contents, is_plain
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened

_FEWEST = 2
"""Tensors of layers, by names with dots, that tell a state dict with other things in it."""
_ACCURACIES = ("accuracy", "acc", "test_acc", "val_acc", "best_acc", "best_acc1")


def recognises(obj: object) -> bool:
    """Say whether loaded objects are tensors by name, and plain values beside them at most."""
    return is_state_dict(obj) or _layers(obj) >= _FEWEST


def read(obj: object) -> Contents:
    """Return the state dict, and what a script put into it: an epoch, an accuracy."""
    assert isinstance(obj, Mapping)
    if is_state_dict(obj):
        return Contents(state_dict=obj, format="state dict")
    beside = {key: value for key, value in obj.items() if is_plain(value)}
    accuracies = (accuracy_of(obj.get(key)) for key in _ACCURACIES)
    listed = shortened(", ".join(f"'{key}'" for key in beside))
    return Contents(
        state_dict={key: value for key, value in obj.items() if key not in beside},
        format="state dict",
        remembered=Remembered(
            epochs=whole_of(obj.get("epoch")),
            accuracy=next((each for each in accuracies if each is not None), None),
        ),
        notes=(f"What stands among the weights and is none was left out: {listed}.",),
    )


def _layers(obj: object) -> int:
    """Count the tensors of layers in a dictionary of tensors and plain values; 0 for any other."""
    if not isinstance(obj, Mapping) or not all(isinstance(key, str) for key in obj):
        return 0
    tensors = {key: value for key, value in obj.items() if not is_plain(value)}
    return sum("." in key for key in tensors) if is_state_dict(tensors) else 0
