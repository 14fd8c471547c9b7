"""Averaged weights (EMA, SWA) beside the trained ones: they are the network that is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from trainscope.networks.readers.inert import Inert
from trainscope.networks.state_dict import AVERAGED, is_state_dict
from trainscope.networks.tensor_names import plain_names
from trainscope.records.text import shortened

FIRST = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")
"""Keys that scripts keep averaged weights under, taken before others that say so."""

_WORD = re.compile(r"(?<![a-z])(ema|swa|lawa|polyak|shadow|avg|average|averaged|averages)(?![a-z])")
_DEPTH = 3
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def is_averaged(key: object) -> bool:
    """Say whether a key says that weights under it are averaged: `swa_model`, `params_ema`."""
    return isinstance(key, str) and _WORD.search(_HUMP.sub("_", key).lower()) is not None


def averaged_alone(obj: Mapping[object, object]) -> str | None:
    """Return the key of averaged weights that are the only state dict there, or None."""
    found = [key for key, value in obj.items() if is_state_dict(value)]
    return str(found[0]) if len(found) == 1 and is_averaged(found[0]) else None


def preferred(
    obj: Mapping[object, object], key: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Return the averaged weights of a dictionary, else the trained ones, and what to say of it.

    Some scripts average the weights and not the statistics of batch norm. Such an average is no
    network by itself, so it is left alone, and so is one of no step yet.

    Args:
        obj: As it was loaded.
        key: Where the trained weights are; they are a state dict.
    """
    trained: Mapping[str, Tensor] = obj[key]  # type: ignore[assignment]
    names = set(plain_names(trained).values())
    notes: list[str] = []
    for each in _keys(obj):
        if not is_filled(obj[each]):
            continue
        if each == key:  # there are no trained ones
            return trained, (f"The averaged weights ({each}) were taken.",)
        why = "they are not stored as a state dict of the whole network"
        for state in _states(obj[each]):
            held = [name for name in state if name != AVERAGED]
            if not names <= set(plain_names(held).values()):
                lacking = len(names - set(plain_names(held).values()))
                why = f"{lacking} of the network's {len(names)} tensors are not among them"
                continue
            count = state.get(AVERAGED)
            if isinstance(count, Tensor) and not bool(count):
                why = "averaging had not begun (n_averaged is 0)"
                continue
            return state, (f"The averaged weights ({each}) were taken.", *notes)
        notes.append(
            f"The averaged weights under '{shortened(each, 40)}' were left out, as {why}; the "
            f"trained ones under '{shortened(key, 40)}' were taken."
        )
    return trained, tuple(notes)


def states_under(key: object, value: object) -> list[Mapping[str, Tensor]]:
    """Return the state dicts under a key; one key further below only where it says averaged."""
    if is_state_dict(value):
        return [value]  # type: ignore[list-item]
    return list(_states(value)) if is_averaged(key) else []


def _keys(obj: Mapping[object, object]) -> list[str]:
    """Return the keys that say so, those that are known first."""
    said = [key for key in obj if isinstance(key, str) and is_averaged(key)]
    return sorted(said, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))


def _states(value: object) -> Iterator[Mapping[str, Tensor]]:
    """Yield state dicts: the value itself, and those one key below it (`shadow`, `module`)."""
    if is_state_dict(value):
        yield value  # type: ignore[misc]
    elif isinstance(value, Mapping):
        yield from (each for each in value.values() if is_state_dict(each))


def is_filled(value: object, depth: int = 0) -> bool:
    """Tell weights of any form from a number, a flag, or nothing."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    if isinstance(value, Mapping | list | tuple) and depth < _DEPTH:
        inside = value.values() if isinstance(value, Mapping) else value
        return any(is_filled(each, depth + 1) for each in inside)
    return isinstance(value, Inert) and "_modules" in value.state
