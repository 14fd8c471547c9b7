"""Masks that stand beside a layer's weight in a state dict, under names of the script's own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trainscope.networks.state_dict import Weights, told_of_masks


def with_layer_masks(weights: Weights) -> Weights:
    """Return weights with the masks beside them applied: `conv1.mask`, `conv1.weight.mask`, ...

    A mask is zeros and ones of its weight's shape, or of its outputs' ([N, 1, 1, 1]), with "mask"
    in the name that it has in the layer; also one named after its weight, `mask_layer1_0_conv1`.
    Others are let be.

    Args:
        weights: Of a network that has no such names of its own.
    """
    by_word = _by_word(weights)
    found: dict[str, Tensor] = {}
    taken = []
    for name, value in weights.tensors.items():
        own = _weight_of(name, weights, by_word)
        mask = None if own is None else _fitting(value, weights.tensors[own])
        if own is not None and mask is not None and own not in weights.masks:
            found[own] = found[own] & mask if own in found else mask
            taken.append(name)
    if not found:
        return weights
    tensors = {name: value for name, value in weights.tensors.items() if name not in taken}
    tensors |= {name: tensors[name] * mask for name, mask in found.items()}
    note = f"'{taken[0]}' and {len(taken) - 1} more like it were read as masks of the weights."
    if len(taken) == 1:
        note = f"'{taken[0]}' was read as the mask of '{next(iter(found))}'."
    notes = (*weights.notes, note, told_of_masks(found))
    return replace(weights, tensors=tensors, masks={**weights.masks, **found}, notes=notes)


def _weight_of(name: str, weights: Weights, by_word: dict[str, str]) -> str | None:
    """Return the name of the weight that a tensor may be the mask of."""
    owner, _, leaf = name.rpartition(".")
    if "mask" not in leaf.lower():
        return None
    part = "bias" if "bias" in leaf.lower() else "weight"
    known = (owner, f"{owner}.{part}" if owner else part)
    beside = next((each for each in known if each in weights.tensors and each != name), None)
    if beside is not None:
        return beside
    return by_word.get(leaf.lower().replace("masks", "").replace("mask", "").strip("_"))


def _by_word(weights: Weights) -> dict[str, str]:
    """Return weights by their names, and their layers', in one word: `layer1_0_conv1`."""
    found = {}
    for name in weights.tensors:
        layer, _, leaf = name.rpartition(".")
        found[name.lower().replace(".", "_")] = name
        if leaf == "weight":
            found[layer.lower().replace(".", "_")] = name
    return found


def _fitting(mask: Tensor, weight: Tensor) -> Tensor | None:
    """Return a mask of a weight's shape, None where a tensor is none."""
    outputs = (len(weight), *(1,) * (weight.ndim - 1)) if weight.ndim > 1 else ()
    if mask.shape != weight.shape and tuple(mask.shape) != outputs:
        return None
    if not bool(((mask == 0) | (mask == 1)).all()):
        return None
    return mask.bool().expand(weight.shape).contiguous()
