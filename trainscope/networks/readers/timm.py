"""The dictionary of timm's training script: `state_dict`, `state_dict_ema`, `arch`, `args`."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import preferred
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.inert import arguments_in
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.networks.state_dict import is_state_dict

AVERAGED = "state_dict_ema"


def recognises(obj: object) -> bool:
    """Say whether loaded objects are what timm's training script saves."""
    return (
        isinstance(obj, Mapping)
        and (is_state_dict(obj.get("state_dict")) or is_state_dict(obj.get(AVERAGED)))
        and (AVERAGED in obj or ("version" in obj and arguments_in(obj.get("args")) is not None))
    )


def read(obj: object) -> Contents:
    """Return what is in it, the averaged weights (EMA) where there are any."""
    assert isinstance(obj, Mapping)
    key = "state_dict" if is_state_dict(obj.get("state_dict")) else AVERAGED
    state, notes = preferred(obj, key)
    arguments = arguments_in(obj.get("args")) or {}
    name = obj.get("arch", arguments.get("model"))
    done = whole_of(obj.get("epoch"))
    return Contents(
        state_dict=state,
        format="timm training script",
        architecture=name if isinstance(name, str) else None,
        remembered=Remembered(
            epochs=None if done is None else done + 1,  # timm counts epochs from 0
            seed=whole_of(arguments.get("seed")),
            accuracy=accuracy_of(obj.get("metric")),
        ),
        notes=notes,
    )
