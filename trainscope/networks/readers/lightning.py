"""Lightning's checkpoint: `pytorch-lightning_version`, and the network inside a LightningModule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from trainscope.networks.network import Remembered
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import whole_of
from trainscope.networks.state_dict import is_state_dict
from trainscope.records.text import shortened

VERSION = "pytorch-lightning_version"


def recognises(obj: object) -> bool:
    """Say whether loaded objects are what a Lightning Trainer saves."""
    return isinstance(obj, Mapping) and VERSION in obj and is_state_dict(obj.get("state_dict"))


def read(obj: object) -> Contents:
    """Return the network's tensors; those of losses and metrics beside it are left out."""
    assert isinstance(obj, Mapping)
    version = obj[VERSION] if isinstance(obj[VERSION], str) else "(unknown version)"
    network, others = _network(obj["state_dict"])
    notes = (f"Tensors beside the network were left out: {', '.join(others)}.",) if others else ()
    return Contents(
        state_dict=network,
        format=f"Lightning {shortened(version, 20)} checkpoint",
        architecture=_named(obj.get("hyper_parameters")),
        remembered=Remembered(epochs=whole_of(obj.get("epoch"))),
        notes=notes,
    )


def _network(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of the attribute that holds most of the weights, and other attributes."""
    sizes: Counter[str] = Counter()
    for name, value in state.items():
        sizes[name.partition(".")[0]] += value.numel() if isinstance(value, Tensor) else 0
    if not sizes:
        return dict(state), []
    largest = sizes.most_common(1)[0][0]
    # A module that is the network itself has many attributes of its own; a wrapper has one large.
    if sizes[largest] < 0.9 * sum(sizes.values()) or "." not in next(
        name for name in state if name.partition(".")[0] == largest
    ):
        return dict(state), []
    inner = {n.partition(".")[2]: v for n, v in state.items() if n.startswith(largest + ".")}
    if not all("." in name for name in inner):
        return dict(state), []
    return inner, [name for name in sizes if name != largest]


def _named(hyper: object) -> str | None:
    if not isinstance(hyper, Mapping):
        return None
    names = (hyper.get(key) for key in ("arch", "architecture", "model", "model_name"))
    return next((name for name in names if isinstance(name, str) and ":" not in name), None)
