"""State dicts under keys of a script's own, such as `student` and `teacher`, in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.contents import Contents, State
from trainscope.networks.readers.masks_beside import is_masks
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened


def recognises(obj: object) -> bool:
    """Say whether any value of a dictionary is a state dict."""
    return isinstance(obj, Mapping) and bool(_states(obj))


def read(obj: object) -> Contents:
    """Return the one state dict; of several, all tensors, with the key before their names."""
    assert isinstance(obj, Mapping)
    states = _states(obj)
    joined = {f"{key}.{name}": v for key, held in states.items() for name, v in held.items()}
    return Contents(
        state_dict=next(iter(states.values())) if len(states) == 1 else joined,
        format=f"dictionary with state dicts under {shortened(', '.join(states))}",
        remembered=Remembered(epochs=whole_of(obj.get("epoch"))),
    )


def _states(obj: Mapping[object, object]) -> dict[str, State]:
    return {
        key: value
        for key, value in obj.items()
        if isinstance(key, str)
        and isinstance(value, Mapping)
        and is_state_dict(value)
        and not is_masks(key, value)
    }
