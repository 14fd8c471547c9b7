"""Masks that a script keeps under a key of their own, beside the weights that they are of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainscope.networks.described import Described
from trainscope.networks.masks import SUFFIX
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numpy_values import Array
from trainscope.networks.tensor_names import plain_names
from trainscope.records.text import shortened

_ENDS = (SUFFIX, ".mask", "_masks")
"""What names of masks have behind those of the weights."""

_ALONE = re.compile(r"(?P<home>(?P<owner>(?:.*\.)?)parametrizations\.(?P<leaf>\w+))\.(?P<part>.+)")
_DEPTH = 3
"""Keys over each other below which masks may stand, as in the state of a pruner."""


def is_masks(key: object, value: object) -> bool:
    """Tell masks by their key and their values, which are 0 and 1."""
    if not isinstance(key, str) or "mask" not in key.lower():
        return False
    tensors = list(_flat(value).values()) if isinstance(value, Mapping) else value
    if not isinstance(tensors, Sequence) or isinstance(tensors, str) or not tensors:
        return False
    known = [each for each in tensors if each is not None]
    return bool(known) and all(isinstance(each, Tensor) and _is_mask(each) for each in known)


def with_masks(contents: Contents, obj: object) -> Contents:
    """Return contents whose weights have the masks that stand beside them in a dictionary.

    Masks are found by the names of weights or of layers, or, in a list, by their order.

    Args:
        contents: What was read of the dictionary.
        obj: It.
    """
    if not isinstance(obj, Mapping):
        return contents
    if any(name.endswith(SUFFIX) for name in contents.state_dict):
        return contents  # they have masks of their own
    names = _without_parts(contents.state_dict)
    weights = {
        names[name]: value
        for name, value in contents.state_dict.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    first: str | None = None
    for key, masks in _inside(obj, contents.state_dict):
        if not _may_be(key, masks):
            continue
        found = (
            _by_name(_flat(masks), weights)
            if isinstance(masks, Mapping)
            else _by_order(masks, weights)
        )
        if found:
            kept = contents.state_dict.items()
            state = {names[n] if names[n] in found else n: value for n, value in kept}
            state |= {f"{name}{SUFFIX}": mask for name, mask in found.items()}
            note = f"The masks under '{shortened(key, 40)}' were applied to the weights."
            return replace(contents, state_dict=state, notes=(*contents.notes, note))
        if first is None and is_masks(key, masks):
            first = key
    first = first or next((key for key, value in obj.items() if _is_unread(key, value)), None)
    return contents if first is None else _left_out(contents, first)


def _without_parts(state: Mapping[str, object]) -> dict[str, str]:
    """Return names by those in a file, of weights that stand alone in a parametrization plain ones.

    torch.ao's sparsifier keeps the masks of its parametrizations in its own state alone.
    """
    parts = {name: _ALONE.fullmatch(name) for name in state}
    counts = Counter(found["home"] for found in parts.values() if found)
    return {
        name: f"{found['owner']}{found['leaf']}"
        if found and found["part"] == "original" and counts[found["home"]] == 1
        else name
        for name, found in parts.items()
    }


def _inside(obj: Any, state: object, above: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield what stands under keys of a dictionary, the outer ones first, but for the weights."""
    held = [(f"{above}{key}", value) for key, value in obj.items() if value is not state]
    yield from held
    for key, value in held:
        if isinstance(value, Mapping) and depth < _DEPTH:
            yield from _inside(value, state, f"{key}.", depth + 1)


def _may_be(key: str, value: object) -> bool:
    """Tell masks by their key, or by the names or the values in a dictionary of them."""
    if is_masks(key.rpartition(".")[2], value):
        return True
    if not isinstance(value, Mapping) or not value:
        return False
    flat = _flat(value)
    held = [each for each in flat.values() if isinstance(each, Tensor)]
    if len(held) < len(flat) or not held or not all(map(_is_mask, held)):
        return False
    named = all("mask" in name.lower() for name in flat)
    return named or any(bool(each.any()) and not bool(each.all()) for each in held)


def _left_out(contents: Contents, key: str) -> Contents:
    note = (
        f"The file keeps masks under '{shortened(key, 40)}' that do not fit its weights by name, "
        "shape and kind; they were left out, and the weights are measured as they are stored."
    )
    return replace(contents, notes=(*contents.notes, note))


def _is_unread(key: object, value: object) -> bool:
    """Tell masks that cannot be used: of a kind that is not built, or with other values."""
    if not isinstance(key, str) or not key.lower().endswith(("mask", "masks")):
        return False
    if not isinstance(value, Mapping | list | tuple):
        return False
    parts = _flat(value).values() if isinstance(value, Mapping) else value
    return any(isinstance(each, Described | Tensor | Array) for each in parts)


def _flat(masks: Mapping[object, Any]) -> dict[str, Any]:
    """Return masks by one name each, also of a dictionary of them for each layer."""
    found: dict[str, Any] = {}
    for name, value in masks.items():
        if isinstance(value, Mapping):
            inner = {f"{name}.{leaf}": each for leaf, each in value.items()}
            found |= {key: each for key, each in inner.items() if each is not None}
        else:
            found[str(name)] = value
    return found


def _is_mask(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
        return False
    return bool(((tensor == 0) | (tensor == 1)).all())


def _by_name(
    masks: Mapping[str, Tensor | None], weights: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Return masks by the weights' names, None where one has no weight of its shape."""
    own = {plain: name for name, plain in plain_names(weights).items()}
    given = {name: mask for name, mask in masks.items() if mask is not None}
    found = {}
    for name, plain in plain_names(given).items():
        stem = next((plain.removesuffix(end) for end in _ENDS if plain.endswith(end)), plain)
        stored = next((own[each] for each in (stem, f"{stem}.weight") if each in own), None)
        mask = None if stored is None else _whole(given[name], weights[stored])
        if stored is None or mask is None:
            return None
        found[stored] = mask
    return found


def _whole(mask: Tensor, weight: Tensor) -> Tensor | None:
    """Return a mask of a weight's shape, also of one for each of its outputs; None of another.

    One axis of outputs alone is told from inputs by its length.
    """
    if mask.shape == weight.shape:
        return mask
    if weight.ndim < 2:
        return None
    outputs = (len(weight), *(1,) * (weight.ndim - 1))
    alone = tuple(mask.shape) == (len(weight),) and len(weight) != weight.shape[1]
    if tuple(mask.shape) != outputs and not alone:
        return None
    return mask.reshape(outputs).expand(weight.shape).contiguous()


def _by_order(
    masks: Sequence[Tensor | None], weights: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Return a list's masks by the weights' names, where matrices and kernels are as many."""
    for names in (
        [name for name, weight in weights.items() if weight.ndim > 1],
        [name for name, weight in weights.items() if weight.ndim > 2],  # convolutions alone
        list(weights),
    ):
        if len(names) == len(masks) and all(
            mask is None or mask.shape == weights[name].shape
            for name, mask in zip(names, masks, strict=True)
        ):
            pairs = zip(names, masks, strict=True)
            return {name: mask for name, mask in pairs if mask is not None}
    return None
