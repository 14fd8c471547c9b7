"""Lightning's checkpoint: `pytorch-lightning_version`, and the network inside a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import is_averaged, is_filled
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened

VERSION = "pytorch-lightning_version"


def recognises(obj: object) -> bool:
    """Say whether loaded objects are what a Lightning Trainer saves."""
    return isinstance(obj, Mapping) and VERSION in obj and is_state_dict(obj.get("state_dict"))


def read(obj: object) -> Contents:
    """Return all of the tensors; losses, metrics and teachers among them are told apart later."""
    assert isinstance(obj, Mapping)
    version = obj[VERSION] if isinstance(obj[VERSION], str) else "(unknown version)"
    return Contents(
        state_dict=obj["state_dict"],
        format=f"Lightning {shortened(version, 20)} checkpoint",
        architecture=_named(obj.get("hyper_parameters")),
        remembered=Remembered(epochs=whole_of(obj.get("epoch"))),
        notes=_left_out(obj.get("callbacks")),
    )


def _left_out(callbacks: object) -> tuple[str, ...]:
    """Return the sentence on averaged weights that a callback keeps beside the trained ones."""
    states = callbacks.items() if isinstance(callbacks, Mapping) else ()
    for name, state in states:
        inside = state.items() if isinstance(state, Mapping) else ()
        key = next((k for k, held in inside if is_averaged(k) and is_filled(held)), None)
        if key is not None:
            where = f"callbacks, '{shortened(str(name), 60)}', '{shortened(str(key), 40)}'"
            return (
                f"The averaged weights under {where} were left out; save them as a state dict to "
                "measure them.",
            )
    return ()


def _named(hyper: object) -> str | None:
    if not isinstance(hyper, Mapping):
        return None
    names = (hyper.get(key) for key in ("arch", "architecture", "model", "model_name"))
    return next((name for name in names if isinstance(name, str) and ":" not in name), None)
