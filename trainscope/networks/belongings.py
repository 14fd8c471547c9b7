"""What a network's modules hold beside parameters and buffers, kept so that it can be put back.

A module may keep anything as an attribute: a `torch.Generator`, a plain tensor, a list of losses, a
dictionary of counters. Followed are containers (dict, list, set, deque, tuple), dataclasses, plain
namespaces, objects of classes that the network's own Python files define, and modules that are kept
out of the module tree. Anything else, such as a trainer or an open file, is not looked into.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainscope.networks.undo import put_back

Undo = Callable[[], None]

# Written out here, for thousands of things are asked what they are.
_ATOMS = (str, int, float, bool, type(None), type)
_CONTAINERS = (list, tuple, set, frozenset, deque)


def keep_belongings(network: nn.Module) -> list[Undo]:
    """Return what to call, in order, to give everything that a network holds its content back.

    Parameters and buffers of registered modules are left to the caller. Plain tensors and arrays
    are copied once.
    """
    registered = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    own = _own_files(network)
    undos = (_undo(thing, own) for thing in _followed(network) if id(thing) not in registered)
    return [undo for undo in undos if undo is not None]


@contextmanager
def as_it_belongs(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network whose attributes a pass may change, as a hidden state; they are put back."""
    undos = keep_belongings(network)
    try:
        yield network
    finally:
        for undo in undos:
            undo()


def own_generators(network: nn.Module) -> list[torch.Generator]:
    """Return the random generators of torch that a network's modules hold."""
    return [thing for thing in _followed(network) if isinstance(thing, torch.Generator)]


def _own_files(network: nn.Module) -> set[str]:
    """Return the names of the Python modules that define a network's classes."""
    return {type(module).__module__ for module in network.modules()}


def _followed(network: nn.Module) -> Iterator[Any]:
    """Yield everything that is looked into, each thing once, a container before its contents."""
    own = _own_files(network)
    waiting: list[Any] = [network]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _ATOMS):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, _CONTAINERS):
            waiting += thing
        elif not isinstance(thing, Tensor) and _has_contents(thing, own):
            waiting += [getattr(thing, name) for name in _slots(thing)]
            waiting += [vars(thing)] if hasattr(thing, "__dict__") else []


def _has_contents(thing: object, own: set[str]) -> bool:
    """Tell whether an object's attributes are a network's own state."""
    if isinstance(thing, nn.Module):
        return True
    known = is_dataclass(thing) or isinstance(thing, SimpleNamespace)
    return known or type(thing).__module__ in own


def _slots(thing: object) -> list[str]:
    """Return the names of the attributes that an object keeps in slots and has set."""
    found: list[str] = []
    for kind in type(thing).__mro__:
        names = vars(kind).get("__slots__", ())
        found += [names] if isinstance(names, str) else names
    return [name for name in found if name != "__dict__" and hasattr(thing, name)]


def _undo(thing: Any, own: set[str]) -> Undo | None:
    """Return what gives one thing its present content back; None where it has none of its own."""
    if isinstance(thing, dict):
        return _undo_dict(thing)
    if isinstance(thing, list | deque):
        return _undo_sequence(thing)
    if isinstance(thing, set):
        return _undo_set(thing)
    if type(thing) in (Tensor, nn.Parameter):
        return _undo_tensor(thing)
    if isinstance(thing, np.ndarray):
        return _undo_array(thing)
    if isinstance(thing, torch.Generator):
        state = thing.get_state()
        return lambda: _set_generator(thing, state)
    if isinstance(thing, random.Random):
        python = thing.getstate()
        return lambda: thing.setstate(python)
    if isinstance(thing, np.random.Generator):
        drawn = copy.deepcopy(thing.bit_generator.state)
        return lambda: setattr(thing.bit_generator, "state", drawn)
    if isinstance(thing, np.random.RandomState):
        legacy = thing.get_state()
        return lambda: thing.set_state(legacy)
    if not isinstance(thing, tuple | frozenset) and _has_contents(thing, own):
        return _undo_slots(thing)  # what is not in slots is in a dictionary of its own
    return None


def _undo_dict(table: dict[Any, Any]) -> Undo:
    entries = dict(table)

    def undo() -> None:
        same = list(table) == list(entries) and all(table[k] is v for k, v in entries.items())
        if not same:
            table.clear()
            table.update(entries)

    return undo


def _undo_sequence(values: list[Any] | deque[Any]) -> Undo:
    kept = list(values)

    def undo() -> None:
        same = len(values) == len(kept) and all(a is b for a, b in zip(values, kept, strict=True))
        if not same:
            values.clear()
            values.extend(kept)

    return undo


def _undo_set(values: set[Any]) -> Undo:
    kept = set(values)

    def undo() -> None:
        if values != kept:
            values.clear()
            values.update(kept)

    return undo


def _undo_slots(thing: object) -> Undo | None:
    kept = {name: getattr(thing, name) for name in _slots(thing)}

    def undo() -> None:
        for name, value in kept.items():
            if getattr(thing, name, None) is not value:
                object.__setattr__(thing, name, value)

    return undo if kept else None


def _undo_array(array: np.ndarray[Any, Any]) -> Undo | None:
    if array.dtype.hasobject or not array.flags.writeable:
        return None
    kept = array.copy()

    def undo() -> None:
        if array.tobytes() != kept.tobytes():
            array[...] = kept

    return undo


def _undo_tensor(tensor: Tensor) -> Undo | None:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return None
    home, value = tensor.data, tensor.detach().clone()
    return lambda: put_back(tensor, home, value)


def _set_generator(generator: torch.Generator, state: Tensor) -> None:
    if not torch.equal(generator.get_state(), state):
        generator.set_state(state)
