"""State dicts under keys of a script's own, such as `student` and `teacher`, in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import is_averaged, preferred
from trainscope.networks.readers.contents import Contents, State
from trainscope.networks.readers.masks_beside import is_masks
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened


def recognises(obj: object) -> bool:
    """Say whether any value of a dictionary is a state dict."""
    return isinstance(obj, Mapping) and bool(_states(obj))


def read(obj: object) -> Contents:
    """Return the one state dict; of several, all tensors, with the key before their names.

    Of one and its average, the average is taken where it is a whole network.
    """
    assert isinstance(obj, Mapping)
    states = _states(obj)
    trained = [key for key in states if not is_averaged(key)]
    state: State = {f"{key}.{name}": v for key, held in states.items() for name, v in held.items()}
    notes: tuple[str, ...] = ()
    if len(states) == 1:
        state = next(iter(states.values()))
    if len(trained) == 1:
        state, notes = preferred(obj, trained[0])
    return Contents(
        state_dict=state,
        format=f"dictionary with state dicts under {shortened(', '.join(states))}",
        remembered=Remembered(epochs=whole_of(obj.get("epoch"))),
        notes=notes,
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
