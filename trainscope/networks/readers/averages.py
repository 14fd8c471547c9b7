"""Averaged weights (EMA, SWA) beside the trained ones: they are the network that is used."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trainscope.networks.state_dict import is_state_dict
from trainscope.networks.tensor_names import plain_names

KEYS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")
"""Keys that scripts keep averaged weights under, the first found is taken."""


def averaged_in(obj: Mapping[object, object]) -> str | None:
    """Return the key of averaged weights that are a state dict, or None."""
    return next((key for key in KEYS if is_state_dict(obj.get(key))), None)


def preferred(
    obj: Mapping[object, object], key: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Return the averaged weights of a dictionary, else the trained ones, and what to say of it.

    Some scripts average the weights and not the statistics of batch norm. Such an average is no
    network by itself, so it is left alone.

    Args:
        obj: As it was loaded.
        key: Where the trained weights are; they are a state dict.
    """
    trained: Mapping[str, Tensor] = obj[key]  # type: ignore[assignment]
    names = set(plain_names(trained).values())
    for each in KEYS:
        averaged = obj.get(each)
        if is_state_dict(averaged):
            state: Mapping[str, Tensor] = averaged  # type: ignore[assignment]
            held = [name for name in state if name != "n_averaged"]
            if names <= set(plain_names(held).values()):
                return state, (f"The averaged weights ({each}) were taken.",)
    return trained, ()
