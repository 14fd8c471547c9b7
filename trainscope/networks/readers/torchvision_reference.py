"""The dictionary of torchvision's reference training script: `model`, `model_ema`, `args`."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import preferred
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.inert import arguments_in
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.state_dict import is_state_dict


def recognises(obj: object) -> bool:
    """Say whether loaded objects are what torchvision's reference script saves."""
    return (
        isinstance(obj, Mapping)
        and is_state_dict(obj.get("model"))
        and arguments_in(obj.get("args")) is not None
    )


def read(obj: object) -> Contents:
    """Return what is in it, the averaged weights (EMA) where there are any."""
    assert isinstance(obj, Mapping)
    arguments = arguments_in(obj["args"]) or {}
    state, notes = preferred(obj, "model")
    name = arguments.get("model")
    done = whole_of(obj.get("epoch"))
    return Contents(
        state_dict=state,
        format="torchvision reference script",
        architecture=name if isinstance(name, str) else None,
        remembered=Remembered(
            # The script counts epochs from 0 and saves after each.
            epochs=None if done is None else done + 1,
            seed=whole_of(arguments.get("seed")),
        ),
        notes=notes,
    )
