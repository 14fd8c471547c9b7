"""A state dict under one key of a dictionary, beside epochs, optimizers and the like."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import averaged_alone, preferred
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.networks.state_dict import is_state_dict

KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"),
    "module",
)
"""Keys that scripts (the last: DeepSpeed) keep the weights under, the first found is taken."""

_ACCURACIES = ("accuracy", "test_acc", "val_acc", "acc", "best_acc", "best_acc1", "best_prec1")


def recognises(obj: object) -> bool:
    """Say whether a dictionary holds a state dict under a known key."""
    return isinstance(obj, Mapping) and _key(obj) is not None


def read(obj: object) -> Contents:
    """Return the state dict, averaged weights first, and the epoch and accuracy beside it."""
    assert isinstance(obj, Mapping)
    key = _key(obj)
    name = next((obj[k] for k in ("arch", "architecture") if isinstance(obj.get(k), str)), None)
    accuracies = (accuracy_of(obj.get(k)) for k in _ACCURACIES)
    assert key is not None
    state, notes = preferred(obj, key)
    return Contents(
        state_dict=state,
        format=f"dictionary with a state dict under '{key}'",
        architecture=name,
        remembered=Remembered(
            epochs=whole_of(obj.get("epoch")),
            accuracy=next((each for each in accuracies if each is not None), None),
        ),
        notes=notes,
    )


def _key(obj: Mapping[object, object]) -> str | None:
    """Return the known key of the trained weights, else that of averaged ones alone."""
    return next((key for key in KEYS if is_state_dict(obj.get(key))), None) or averaged_alone(obj)
