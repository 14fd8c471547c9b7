"""Masks that a script keeps under a key of their own, beside the weights that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    key = next((key for key, value in obj.items() if is_masks(key, value)), None)
    if key is None:
        unread = next((key for key, value in obj.items() if _is_unread(key, value)), None)
        if unread is None:
            return contents
        why = "are arrays of numpy's (torch.from_numpy makes tensors of them)"
        return _left_out(contents, unread, why if _has_arrays(obj[unread]) else "")
    weights = {
        name: value
        for name, value in contents.state_dict.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    if any(name.endswith(SUFFIX) for name in contents.state_dict):
        return contents  # they have masks of their own
    masks = obj[key]
    if isinstance(masks, Mapping):
        found = _by_name(_flat(masks), weights)
    else:
        found = _by_order(masks, weights)
    if found is None:
        return _left_out(contents, key)
    state = {**contents.state_dict, **{f"{name}{SUFFIX}": mask for name, mask in found.items()}}
    note = f"The masks under '{shortened(key, 40)}' were applied to the weights."
    return replace(contents, state_dict=state, notes=(*contents.notes, note))


def _left_out(contents: Contents, key: str, why: str = "") -> Contents:
    why = why or "do not fit its weights by name, shape and kind"
    note = (
        f"The file keeps masks under '{shortened(key, 40)}' that {why}; they were left out, and "
        "the weights are measured as they are stored."
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


def _has_arrays(value: Any) -> bool:
    parts = _flat(value).values() if isinstance(value, Mapping) else value
    return any(isinstance(each, Array) for each in parts)


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
        if stored is None or weights[stored].shape != given[name].shape:
            return None
        found[stored] = given[name]
    return found


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
