"""Zeros that mean pruned: weights at exactly zero without masks, more than chance explains.

A weight that was trained or drawn in floating point is practically never exactly zero; one that was
rounded to a coarse grid (integers, float8, ternary) is zero as often as it takes the values next to
zero. So the values that are not zero say how many zeros rounding makes: where values never repeat,
none; where they repeat, about as many as a value near zero has repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainscope.networks.masks import masks_of
from trainscope.networks.weights import EMBEDDING, OTHER, Weight, outputs_first, weights_in
from trainscope.records import LayerChange

LEAST = 0.01
"""A layer with a smaller share of zeros is no evidence: a dead filter, an unused input."""
PEAK = 3.0
"""How many times as often weights lie next to zero as at a magnitude on average."""
_ROWS, _COLUMNS = 256, 4096
"""The largest sample of a weight that is searched for repetitions."""


@dataclass(frozen=True)
class Zeros:
    """The zeros of a network that mean pruned.

    Attributes:
        masks: For each weight pruned so, a mask that is False at its zeros.
        layers: These weights by label, before and after.
        blank: Labels of weights that are zero throughout. Such a layer (a head or an adapter that
            starts at zero) has not begun to train, and is not taken as pruned.
    """

    masks: Mapping[str, Tensor]
    layers: tuple[LayerChange, ...]
    blank: tuple[str, ...]


@dataclass(frozen=True)
class _Held:
    """One weight as [outputs, weights of one], and where it is zero."""

    name: str
    label: str
    rows: Tensor
    zeros: Tensor


def find_zeros(network: nn.Module) -> Zeros:
    """Find the weights of a network that were pruned to zeros without masks.

    One layer that tells suffices: then the zeros of all layers that rounding does not explain
    count, however few. Not looked at are weights that have a mask, biases and the scales of norms,
    and rows of an embedding that are zero throughout, as padding is.

    Args:
        network: Not touched.
    """
    masked = masks_of(network)
    weights = [weight for weight in weights_in(network) if weight.name not in masked]
    blank = tuple(w.label for w in weights if _starts_at_zero(w) and not w.tensor.any())
    # Of most networks no weight is zero: their places are let go of one weight at a time.
    every = (_held(w.name, w.label, w) for w in weights if w.tensor.any())
    told = _told([each for each in every if bool(each.zeros.any())])
    stored = {weight.name: weight for weight in weights}
    masks = {}
    for each in told:
        mask = stored[each.name].tensor != 0
        if stored[each.name].kind == EMBEDDING:
            mask |= ~mask.any(dim=1, keepdim=True)
        masks[each.name] = mask
    return Zeros(masks, _changes(told), blank)


def zeros_in(tensors: Mapping[str, Tensor]) -> tuple[LayerChange, ...]:
    """Return which tensors of an unknown network were pruned to zeros, as `find_zeros` tells it.

    Args:
        tensors: Its weights by name, quantised and sparse ones too; vectors and biases are passed
            over, and so is what has no values.
    """
    held = []
    for name, tensor in tensors.items():
        if tensor.ndim > 1 and not name.endswith("bias"):
            values = _values(tensor)
            if values is not None and bool(values.any()):
                held.append(_Held(name, name, values.flatten(1), values.flatten(1) == 0))
    return _changes(_told(held))


def _values(tensor: Tensor) -> Tensor | None:
    """Return the values of a floating, quantised or sparse tensor as plain float32, or None."""
    if tensor.is_meta or tensor.is_nested:
        return None
    try:
        plain = tensor.detach()
        plain = plain.dequantize() if plain.is_quantized else plain
        plain = plain.to_dense() if plain.layout != torch.strided else plain
        return plain.float() if plain.is_floating_point() else None
    except (RuntimeError, NotImplementedError):  # a kind that torch cannot make plain
        return None


def _starts_at_zero(weight: Weight) -> bool:
    """Say whether a weight is a matrix that something is multiplied by, as far as one can see."""
    leaf = weight.name.rpartition(".")[2]  # tables of biases, as of attention, are added
    return weight.kind != OTHER or (weight.tensor.ndim == 2 and "bias" not in leaf)


def _held(name: str, label: str, weight: Weight) -> _Held:
    rows = outputs_first(weight.module, weight.tensor)
    zeros = rows == 0
    if weight.kind == EMBEDDING:
        zeros &= ~zeros.all(dim=1, keepdim=True)
    return _Held(name, label, rows, zeros)


def _told(held: Sequence[_Held]) -> list[_Held]:
    """Return the weights whose zeros mean pruned; none where no layer tells."""
    counts = [(each, int(each.zeros.sum())) for each in held]
    found = [(each, count) for each, count in counts if count]
    found = [(each, count) for each, count in found if not _explained(each, count)]
    if not any(count >= LEAST * each.rows.numel() for each, count in found):
        return []
    if len(found) == 1 and found[0][1] == found[0][0].rows.shape[1]:
        row = found[0][0].zeros
        if bool(row.all(dim=1).any()):  # one filter that died, one padding row
            return []
    return [each for each, _ in found]


def _explained(each: _Held, count: int) -> bool:
    """Say whether rounding to the values that a weight takes can have made so many zeros."""
    rows, columns = each.rows.shape
    step, stride = -(-rows // _ROWS), -(-columns // _COLUMNS)
    sample = each.rows[::step, ::stride]
    taken = sample[sample != 0]
    if len(taken) > 1 and bool((taken == taken[0]).all()):
        return True  # one value alone: an identity, or an indicator of something
    sample = sample.abs()
    chance = max(_by_rounding(sample), _by_rounding(sample.reshape(1, -1)))
    total = each.rows.numel()
    return bool(count <= chance * total + 4 * (chance * total) ** 0.5)


def _by_rounding(values: Tensor) -> float:
    """Return the largest share of zeros that rounding explains, of magnitudes [rows, n].

    Each row may have a grid of its own, as quantisation by output channel gives it. N values that
    are not zero take u magnitudes, each N / u times on average; zero, between two signs, would be
    taken at most `PEAK` times as often. What repeats never (N / u = 1) lies on no grid.
    """
    ordered = values.sort(dim=1).values
    positive = ordered > 0
    taken = positive.sum(dim=1).double()
    new = positive[:, 1:] & (ordered[:, 1:] != ordered[:, :-1])
    magnitudes = new.sum(dim=1) + positive[:, 0]
    seen = magnitudes > 0
    repeated = taken[seen] / magnitudes[seen] - 1
    return min(float(PEAK * repeated.sum()) / values.numel(), 1.0)


def _changes(told: Sequence[_Held]) -> tuple[LayerChange, ...]:
    return tuple(
        LayerChange(each.label, each.zeros.numel(), int((~each.zeros).sum())) for each in told
    )
