"""Trees of tensors: what batches are, and what networks return."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree


@dataclass(frozen=True)
class Structure:
    """What a batch, or what a network returned, is without its tensors.

    Attributes:
        outer: What torch's pytrees know of it.
        inner: For each leaf of that its kind and the structure of its attributes, None where it
            has none.
        objects: These leaves themselves, of which copies are made.
    """

    outer: Any
    inner: tuple[tuple[type, Structure] | None, ...]
    objects: tuple[Any, ...] = field(compare=False)

    def holding(self, leaves: Iterable[Any]) -> Any:
        """Return the same with other leaves, which must be as many."""
        return self._take(iter(leaves))

    def _take(self, rest: Iterator[Any]) -> Any:
        outer = [
            next(rest) if row is None else _with_parts(thing, row[1]._take(rest))
            for row, thing in zip(self.inner, self.objects, strict=True)
        ]
        return _pytree.tree_unflatten(outer, self.outer)


def flattened(tree: Any) -> tuple[list[Any], Structure]:
    """Return the leaves of a batch, or of what a network returned, in order, and the rest of it.

    Beside tuples, lists and dictionaries it goes into objects that hold tensors: dataclasses and
    others by their attributes, mappings of any kind by their entries.
    """
    return _flattened(tree, ())


def _flattened(tree: Any, above: tuple[Any, ...]) -> tuple[list[Any], Structure]:
    found, outer = _pytree.tree_flatten(tree)
    leaves: list[Any] = []
    inner: list[tuple[type, Structure] | None] = []
    for thing in found:
        parts = None if any(thing is each for each in above) else _parts(thing)
        if parts is None:
            leaves.append(thing)
            inner.append(None)
        else:
            more, structure = _flattened(parts, (*above, thing))
            leaves += more
            inner.append((type(thing), structure))
    return leaves, Structure(outer, tuple(inner), tuple(found))


def _parts(thing: Any) -> dict[str, Any] | None:
    """Return the attributes or entries of an object that holds tensors, None of any other."""
    if thing is None or isinstance(thing, Tensor | nn.Module | type | str | int | float):
        return None
    found: dict[str, Any]
    if isinstance(thing, MutableMapping):
        found = dict(thing)
    elif hasattr(thing, "__dict__"):
        found = dict(vars(thing))
    elif is_dataclass(thing):  # with slots
        found = {each.name: getattr(thing, each.name) for each in fields(thing)}
    else:
        return None
    return found if any(isinstance(x, Tensor) for x in _pytree.tree_leaves(found)) else None


def _with_parts(thing: Any, parts: Mapping[str, Any]) -> Any:
    """Return a copy of an object with other attributes or entries."""
    other = copy.copy(thing)
    for name, value in parts.items():
        if isinstance(thing, MutableMapping):
            other[name] = value
        else:
            object.__setattr__(other, name, value)
    return other
