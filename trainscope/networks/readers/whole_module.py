"""A whole pickled network, or one under `model`: Torch-Pruning's and GReg's usual format.

Its class is not imported. The tree of modules is read from inert stand-ins; its tensors are then
those of a state dict, and the network is rebuilt from an architecture that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeGuard

from torch import Tensor

from trainscope.networks.described import Described
from trainscope.networks.network import Remembered
from trainscope.networks.readers.averages import is_averaged
from trainscope.networks.readers.contents import KIND, Contents, is_plain
from trainscope.networks.readers.inert import Inert, Nesting
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.records.text import shortened

KEYS = ("model", "net", "network", "module", "state_dict")


def recognises(obj: object) -> bool:
    """Say whether inert objects are a network, or a dictionary with one."""
    return _network(obj) is not None


def read(obj: object) -> Contents:
    """Return the network's tensors, and the classes and settings of its layers."""
    network = _network(obj)
    assert network is not None
    beside = obj if isinstance(obj, Mapping) else {}
    tensors, geometry = _held(network)
    notes: tuple[str, ...] = ()
    averaged = _averaged(obj)
    if averaged is not None and averaged[1] is not network:
        theirs, layers = _held(averaged[1])
        if theirs.keys() == tensors.keys():
            network, tensors, geometry = averaged[1], theirs, layers
            notes = (f"The averaged weights ({shortened(averaged[0], 40)}) were taken.",)
    return Contents(
        state_dict=tensors,
        architecture=_named(network),
        format=f"whole pickled network ({shortened(network.named)})",
        remembered=Remembered(
            epochs=whole_of(beside.get("epoch")),
            accuracy=accuracy_of(beside.get("best_acc1", beside.get("acc1"))),
        ),
        geometry=geometry,
        notes=(
            f"It is a pickled {shortened(network.named)}; none of that class's code was run, and "
            "the network was rebuilt from its tensors.",
            *notes,
        ),
    )


def _named(network: Inert) -> str | None:
    """Return the name that timm's networks carry."""
    name = _mapping(network.state.get("pretrained_cfg")).get("architecture")
    return name if isinstance(name, str) and ":" not in name else None


def _network(obj: object) -> Inert | None:
    if isinstance(obj, Inert):
        return obj if "_modules" in obj.state else None
    if isinstance(obj, Mapping):
        found = (_network(obj.get(key)) for key in KEYS)
        trained = next((each for each in found if each is not None), None)
        averaged = _averaged(obj) if trained is None else None
        return averaged[1] if averaged is not None else trained
    return None


def _averaged(obj: object) -> tuple[str, Inert] | None:
    """Return a network under a key that says that its weights are averaged, after the key."""
    items = obj.items() if isinstance(obj, Mapping) else ()
    for key, value in items:
        if is_averaged(key) and isinstance(value, Inert) and "_modules" in value.state:
            return key, value
    return None


def _held(network: Inert) -> tuple[dict[str, Tensor | Described], dict[str, Mapping[str, object]]]:
    """Return a network's tensors, and the settings of its layers."""
    tensors: dict[str, Tensor | Described] = {}
    geometry: dict[str, Mapping[str, object]] = {}
    for name, module in _tree(network):
        tensors |= _tensors(name, module)
        settings = {k: v for k, v in module.state.items() if isinstance(k, str) and is_plain(v)}
        geometry[name] = {**settings, KIND: module.named}
    return tensors, geometry


def _tree(network: Inert) -> Iterator[tuple[str, Inert]]:
    """Yield every module with its name, parents first."""
    waiting, nesting = [("", network)], Nesting()
    while waiting:
        name, module = waiting.pop()
        places = [_mapping(module.state.get(place)) for place in ("_parameters", "_buffers")]
        nesting.enter(name, len(module.state) + sum(map(len, places)))
        yield name, module
        children = _mapping(module.state.get("_modules")).items()
        inner = [(f"{name}.{key}" if name else key, c) for key, c in children if _is_word(key)]
        waiting += [(key, child) for key, child in reversed(inner) if isinstance(child, Inert)]


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}


def _is_word(key: object) -> TypeGuard[str]:
    return isinstance(key, str)


def _tensors(name: str, module: Inert) -> dict[str, Tensor | Described]:
    held = module.state.get("_non_persistent_buffers_set")
    passing = held if isinstance(held, set) else set()
    found: dict[str, Tensor | Described] = {}
    for place in ("_parameters", "_buffers"):
        for leaf, value in _mapping(module.state.get(place)).items():
            if isinstance(value, Tensor | Described) and _is_word(leaf) and leaf not in passing:
                found[f"{name}.{leaf}" if name else str(leaf)] = value
    return found
