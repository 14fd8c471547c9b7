"""The dictionary of PyTorch's ImageNet example: `arch`, `state_dict`, `best_acc1`, `epoch`."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import preferred
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.networks.state_dict import is_state_dict


def recognises(obj: object) -> bool:
    """Say whether loaded objects are what the ImageNet example (or a script after it) saves."""
    return (
        isinstance(obj, Mapping)
        and isinstance(obj.get("arch"), str)
        and is_state_dict(obj.get("state_dict"))
    )


def read(obj: object) -> Contents:
    """Return what is in it, averaged weights first; its accuracy is the best that was seen."""
    assert isinstance(obj, Mapping)
    best = next((obj[key] for key in ("best_acc1", "best_prec1", "best_acc") if key in obj), None)
    state, notes = preferred(obj, "state_dict")
    return Contents(
        state_dict=state,
        format="PyTorch ImageNet example",
        architecture=obj["arch"],
        remembered=Remembered(epochs=whole_of(obj.get("epoch")), accuracy=accuracy_of(best)),
        notes=notes,
    )
