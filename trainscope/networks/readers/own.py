"""Trainscope's own checkpoints: they remember architecture, data, schedule and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainscope.errors import CheckpointError
from trainscope.networks.hub import described
from trainscope.networks.network import Hub, Network, Remembered
from trainscope.networks.readers.contents import Contents, is_plain
from trainscope.networks.readers.folder import is_config
from trainscope.networks.readers.numbers import number_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened

KIND = "trainscope.checkpoint/"
VERSION = 1

_TYPES: dict[str, type | tuple[type, ...]] = {
    "data": str,
    "schedule": str,
    "epochs": int,
    "seed": int,
    "accuracy": (int, float),
}


def recognises(obj: object) -> bool:
    """Say whether loaded objects are a trainscope checkpoint, of any version."""
    said = obj.get("format") if isinstance(obj, Mapping) else None
    return isinstance(said, str) and said.startswith(KIND)


def write(network: Network) -> dict[str, Any]:
    """Return a network as plain types that the safe loader restores."""
    remembered = {name: getattr(network.remembered, name) for name in _TYPES}
    return {
        "format": f"{KIND}{VERSION}",
        "architecture": network.architecture,
        "num_classes": network.num_classes,
        "input_shape": list(network.input_shape),
        "state_dict": {
            name: tensor.detach().cpu() for name, tensor in network.module.state_dict().items()
        },
        "geometry": {name: dict(layer) for name, layer in network.geometry.items()},
        **_hub(network),
        **remembered,
    }


def _hub(network: Network) -> dict[str, str]:
    """Return the configuration of a network of transformers as it stands now, as text."""
    if network.hub is None:
        return {}
    config = described(network.module) or network.hub.config
    return {"config": json.dumps(config), "tokenizer": network.hub.folder}


def _hub_in(obj: Mapping[Any, Any]) -> Hub | None:
    if obj.get("config") is None:
        return None
    try:
        config = json.loads(obj["config"])
    except (TypeError, ValueError, RecursionError) as error:
        raise _incomplete("config") from error
    folder = obj.get("tokenizer", "")
    if not isinstance(config, dict) or not is_config(config) or not isinstance(folder, str):
        raise _incomplete("config")
    return Hub(config, folder)


def read(obj: object) -> Contents:
    """Return what is in a trainscope checkpoint."""
    assert isinstance(obj, Mapping)
    if obj["format"] != f"{KIND}{VERSION}":
        raise CheckpointError(
            f"the file is of the format {shortened(obj['format'])}, and this trainscope reads "
            f"{KIND}{VERSION}; upgrade trainscope"
        )
    state, architecture = obj.get("state_dict"), obj.get("architecture")
    classes, shape = obj.get("num_classes"), obj.get("input_shape")
    if not is_state_dict(state) or not isinstance(architecture, str):
        raise _incomplete("state_dict or architecture")
    if "num_classes" not in obj or (classes is not None and not _counts([classes])):
        raise _incomplete("num_classes")
    if not isinstance(shape, list | tuple) or not _counts(shape):
        raise _incomplete("input_shape")
    for name, kind in _TYPES.items():
        if obj.get(name) is not None and not _fits(obj[name], kind):
            raise _incomplete(name)
    geometry = obj.get("geometry", {})  # files before it have none
    if not _is_geometry(geometry):
        raise _incomplete("geometry")
    assert isinstance(state, Mapping)
    assert classes is None or isinstance(classes, int)
    return Contents(
        state_dict=state,
        format="trainscope checkpoint",
        architecture=architecture,
        num_classes=classes,
        input_shape=tuple(shape),
        geometry=geometry,
        remembered=Remembered(**{name: obj.get(name) for name in _TYPES}),
        hub=_hub_in(obj),
    )


def _counts(values: Sequence[object]) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _fits(value: object, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return isinstance(value, str) or number_of(value) is not None


def _is_geometry(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(layer, Mapping)
        and all(isinstance(key, str) and is_plain(each) for key, each in layer.items())
        for name, layer in value.items()
    )


def _incomplete(what: str) -> CheckpointError:
    return CheckpointError(
        f"the file says that it is a trainscope checkpoint, but its {what} is missing or wrong; "
        "write it again with trainscope.networks.save_checkpoint"
    )
