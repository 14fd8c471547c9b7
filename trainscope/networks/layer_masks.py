"""Masks that stand beside a layer's weight in a state dict, under names of the script's own."""

from __future__ import annotations

import re
from dataclasses import replace

from torch import Tensor

from trainscope.networks.mask_sense import survivors
from trainscope.networks.state_dict import Weights, told_of_masks


def with_layer_masks(weights: Weights) -> Weights:
    """Return weights with the masks beside them applied: `conv1.mask`, `conv1.weight.mask`, ...

    A mask is zeros and ones of its weight's shape, or of its outputs' ([N, 1, 1, 1]), with "mask"
    in the name that it has in the layer; also one named after its weight, `mask_layer1_0_conv1`, or
    in a container of masks, `masks.layer1_0_conv1`. Others are let be.

    Args:
        weights: Of a network that has no such names of its own.
    """
    by_word = _by_word(weights)
    given: dict[str, tuple[str, Tensor]] = {}
    for name, value in weights.tensors.items():
        own = _weight_of(name, weights, by_word)
        mask = None if own is None else _fitting(value, weights.tensors[own])
        if own is not None and mask is not None and own not in weights.masks:
            given[name] = own, mask
    if not given:
        return weights
    taken = list(given)
    kept, sense = survivors(
        {name: mask for name, (_, mask) in given.items()},
        {name: weights.tensors[own] for name, (own, _) in given.items()},
    )
    found: dict[str, Tensor] = {}
    for name, (own, _) in given.items():
        found[own] = found[own] & kept[name] if own in found else kept[name]
    tensors = {name: value for name, value in weights.tensors.items() if name not in taken}
    tensors |= {name: tensors[name] * mask for name, mask in found.items()}
    note = f"'{taken[0]}' and {len(taken) - 1} more like it were read as masks of the weights."
    if len(taken) == 1:
        note = f"'{taken[0]}' was read as the mask of '{next(iter(found))}'."
    notes = (*weights.notes, note, *sense, told_of_masks(found))
    return replace(weights, tensors=tensors, masks={**weights.masks, **found}, notes=notes)


def _weight_of(name: str, weights: Weights, by_word: dict[str, str]) -> str | None:
    """Return the name of the weight that a tensor may be the mask of."""
    owner, _, leaf = name.rpartition(".")
    if "mask" not in leaf.lower():
        return _kept_apart(name, weights, by_word)
    part = "bias" if "bias" in leaf.lower() else "weight"
    known = (owner, f"{owner}.{part}" if owner else part)
    beside = next((each for each in known if each in weights.tensors and each != name), None)
    if beside is not None:
        return beside
    return by_word.get(_word(leaf.lower().replace("masks", "").replace("mask", "")))


def _kept_apart(name: str, weights: Weights, by_word: dict[str, str]) -> str | None:
    """Return the weight of a mask in a container: `masks.conv1`, `pruner.masks.conv1.weight`."""
    words = name.split(".")
    last = max((k for k, word in enumerate(words) if "mask" in word.lower()), default=None)
    if last is None:
        return None
    own = ".".join(words[last + 1 :])
    known = next((each for each in (own, f"{own}.weight") if each in weights.tensors), None)
    return known or by_word.get(_word(own))


def _by_word(weights: Weights) -> dict[str, str]:
    """Return weights by their names, and their layers', in one word: `layer1_0_conv1`.

    The word that all weights' names begin with (`model.conv1`) may be wanting in a mask's.
    """
    known = [name for name in weights.tensors if "mask" not in name.lower()]
    starts = {name.partition(".")[0] if "." in name else "" for name in known}
    forms = [("", known)] + [(f"{start}.", known) for start in starts if len(starts) == 1 and start]
    found: dict[str, str] = {}
    for start, names in forms:
        for name in names:
            layer, _, leaf = name.removeprefix(start).rpartition(".")
            found.setdefault(_word(name.removeprefix(start)), name)
            if leaf == "weight" and layer:
                found.setdefault(_word(layer), name)
    return found


def _word(name: str) -> str:
    """Return a name in one word, whatever its parts are joined by: `.`, `_`, `___`."""
    return re.sub(r"[._]+", "_", name.lower()).strip("_")


def _fitting(mask: Tensor, weight: Tensor) -> Tensor | None:
    """Return a mask of a weight's shape, None where a tensor is none."""
    outputs = (len(weight), *(1,) * (weight.ndim - 1)) if weight.ndim > 1 else ()
    if mask.shape != weight.shape and tuple(mask.shape) != outputs:
        return None
    if not bool(((mask == 0) | (mask == 1)).all()):
        return None
    return mask.bool().expand(weight.shape).contiguous()
