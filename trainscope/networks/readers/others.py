"""The same network's weights under other keys of a file: the best, the trained, the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainscope.networks.readers.averages import states_under
from trainscope.networks.readers.contents import Contents, State
from trainscope.networks.readers.masks_beside import is_masks, with_masks
from trainscope.networks.tensor_names import plain_names
from trainscope.records.text import shortened


def with_others(contents: Contents, obj: object) -> Contents:
    """Return contents with the masks beside them, and with what else there is to be taken.

    Args:
        contents: What was read of a dictionary.
        obj: It.
    """
    masked = with_masks(contents, obj)
    others = _others(contents, obj) if isinstance(obj, Mapping) else {}
    names = _names(contents.state_dict)
    alike = [key for key, state in others.items() if names and names <= _names(state)]
    if not alike:
        return masked
    listed = ", ".join(f"'{shortened(key, 40)}'" for key in alike)
    note = (
        f"The file has weights of the same names under {listed} too; --part NAME takes those "
        "instead."
    )
    bare = replace(contents, notes=())
    kept = {key: with_masks(replace(bare, state_dict=others[key]), obj) for key in alike}
    return replace(masked, notes=(*masked.notes, note), others=kept)


def _others(contents: Contents, obj: Mapping[object, object]) -> dict[str, State]:
    """Return the state dicts beside the one that was taken."""
    found: dict[str, State] = {}
    for key, value in obj.items():
        states = states_under(key, value)
        if any(state is contents.state_dict for state in states):
            continue
        if states and isinstance(key, str) and not is_masks(key, value):
            found[key] = states[0]
    return found


def _names(state: State) -> set[str]:
    return set(plain_names(name for name in state if name != "n_averaged").values())
