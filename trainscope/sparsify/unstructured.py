"""The structures `unstructured` and `N:M`: single weights are masked, the shapes stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainscope.errors import ActionError, NoOpError
from trainscope.networks.example import Inputs
from trainscope.networks.linear import is_turned
from trainscope.networks.masks import masks_of, set_masks
from trainscope.networks.weights import (
    BILINEAR,
    CONVOLUTION,
    MULTIPLIED,
    Weight,
    as_stored,
    inputs_last,
    weights_in,
)
from trainscope.records import LayerChange
from trainscope.sparsify.action import Action
from trainscope.sparsify.candidate import FIRST, OUTPUT, left_alone, shares_of, why_untouched
from trainscope.sparsify.choose import lowest, lowest_by_row, lowest_of_all
from trainscope.sparsify.computed import LOSES_ZEROS, losing_zeros
from trainscope.sparsify.criteria import LayerTarget, scored
from trainscope.sparsify.criteria.criterion import Allotting, Repairing, ranks_of, repaired
from trainscope.sparsify.n_m import fits, keep_n_of_m
from trainscope.sparsify.ratios import after_round, assign, to_prune
from trainscope.sparsify.removal import Removal, percent
from trainscope.sparsify.statistics import Source, Statistic, Statistics, Subject, Unit
from trainscope.sparsify.statistics.layer_inputs import UNSEEN, groups_of, is_seen
from trainscope.sparsify.statistics.statistic import OF_INPUTS
from trainscope.sparsify.verify import called_modules

_TWO_INPUTS = "it has two inputs, and N:M takes consecutive weights of one"
_GRAMS = 2**30
"""Bytes of the Gram matrices that are held at once."""


@dataclass(frozen=True)
class _Row:
    """One weight that is to be pruned: its mask so far, and the share asked for."""

    weight: Weight
    mask: Tensor
    ratio: float

    @property
    def subject(self) -> Subject:
        """What a criterion sees of it."""
        return Subject(
            self.weight.label,
            self.weight.tensor,
            parameters=(self.weight.name,),
            unit=Unit.WEIGHTS,
            turned=is_turned(self.weight.module),
            groups=groups_of(self.weight),
        )


def mask_weights(network: nn.Module, action: Action, source: Source) -> Removal:
    """Mask weights of convolutions, linear, bilinear and recurrent layers and attention, in place.

    Scope `inner` spares the first convolution and the classifier; `all` spares none. Masks that
    the network has stay; a ratio is the share of *all* weights of a layer that are masked in the
    end, those masked before among them. What is no factor of a product that is known (embeddings,
    parameters of the network's own modules) is left alone and named.

    Args:
        network: Given boolean buffers `NAME_mask`; masked weights are set to zero.
        action: With structure "unstructured" or "N:M".
        source: An example of a call, and what the criterion is told.

    Raises:
        ActionError: Nothing would be pruned (`NoOpError` where that is because masks did it).
    """
    weights, spared = _in_scope(network, action, source.inputs)
    lost = losing_zeros(network, weights, source.inputs)
    spared |= {w.label: LOSES_ZEROS for w in weights if w.name in lost}
    weights = [weight for weight in weights if weight.name not in lost]
    if not OF_INPUTS.isdisjoint(action.needs):
        spared |= {w.label: UNSEEN for w in weights if not is_seen(w, network)}
        weights = [weight for weight in weights if weight.label not in spared]
    if action.n_m is not None:
        for weight in weights:
            if weight.kind == BILINEAR:
                spared[weight.label] = _TWO_INPUTS
            elif not fits(inputs_last(weight.module, weight.tensor), action.n_m[1]):
                spared[weight.label] = f"its input width is not a multiple of {action.n_m[1]}"
        weights = [weight for weight in weights if weight.label not in spared]
    if not weights:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(spared.items())[:3])
        raise ActionError(
            f"nothing can be pruned: no weight is in scope {action.scope} ({reasons}); "
            f"{_way_out(network, action, spared)}"
        )
    implied = None if action.n_m is None else 1 - action.n_m[0] / action.n_m[1]
    names = [tuple(dict.fromkeys((w.layer, w.label))) for w in weights]
    ratios = assign(names, action.ratio or implied, action.ratios, spared)
    masked = masks_of(network)
    rows = [
        _Row(w, masked.get(w.name, torch.ones_like(w.tensor, dtype=torch.bool)), ratio)
        for w, ratio in zip(weights, ratios, strict=True)
        if ratio > 0
    ]
    masks, missing = _chosen(network, rows, action, source)
    changed = [
        (row, mask)
        for row, mask in zip(rows, masks, strict=True)
        if not torch.equal(mask, row.mask)
    ]
    asked = {row.weight.label for row in rows}
    excluded = {w.label for w in weights if w.label not in asked}
    excluded |= {name for name, why in spared.items() if why in (FIRST, OUTPUT)}
    if not changed:
        raise NoOpError(_no_op(rows, action), reached=_reached(network, excluded))
    set_masks(network, {row.weight.name: mask for row, mask in changed})
    notes = [f"{missing} weights fewer went: each layer keeps one"] if missing else []
    untold = {name: why for name, why in spared.items() if why not in (FIRST, OUTPUT)}
    notes.extend(left_alone(untold, shares_of(network)))
    shared = action.ranks_together or isinstance(action.by, Allotting)
    counted = rows if shared else [row for row, _ in changed]
    return Removal(
        _meaning(action, counted, set(spared.values())),
        tuple(
            LayerChange(row.weight.label, int(row.mask.sum()), int(mask.sum()))
            for row, mask in changed
        ),
        notes=tuple(notes),
        spared=spared,
        reached=_reached(network, excluded),
    )


def _chosen(
    network: nn.Module, rows: list[_Row], action: Action, source: Source
) -> tuple[list[Tensor], int]:
    """Return what survives of each weight, and how many fewer went than asked.

    Weights that a criterion repairs are given their values in the network.
    """
    masks, missing = [row.mask for row in rows], 0
    for number in range(1, action.rounds + 1):
        missing = 0
        for some in _portions(rows, action):
            statistics = source.collect(
                network, action.needs, action.by.name, {rows[k].weight.name for k in some}
            )
            own = [replace(rows[k], mask=masks[k]) for k in some]
            shares = [after_round(row.ratio, number, action.rounds) for row in own]
            found, fewer = _masks(own, shares, action, statistics, (number, action.rounds))
            missing += fewer
            for k, mask in zip(some, found, strict=True):
                masks[k] = mask
                with torch.no_grad():
                    rows[k].weight.tensor.mul_(mask)
    return masks, missing


def _portions(rows: list[_Row], action: Action) -> list[list[int]]:
    """Return which weights are pruned at once: all, but for the memory of their inputs' Grams."""
    if Statistic.INPUT_GRAM not in action.needs or action.ranks_together:
        return [list(range(len(rows)))]
    found: list[list[int]] = []
    held = 0
    for place, row in enumerate(rows):
        width = row.subject.rows(row.weight.tensor).shape[1]
        size = 8 * row.subject.groups * width**2
        if not found or held + size > _GRAMS:
            found.append([])
            held = 0
        found[-1].append(place)
        held += size
    return found


def _masks(
    rows: list[_Row],
    shares: list[float],
    action: Action,
    statistics: Statistics,
    number: tuple[int, int],
) -> tuple[list[Tensor], int]:
    """Return what survives of some weights in one round, and how many fewer went than asked."""
    criterion = action.by
    subjects = [row.subject.with_weight(row.weight.tensor) for row in rows]
    scores = [
        # What is masked already goes first, and so stays masked.
        scored(criterion, subject, statistics).masked_fill(~row.mask, -torch.inf)
        for subject, row in zip(subjects, rows, strict=True)
    ]
    missing = 0
    if action.n_m is not None:
        found = [
            _keep_n_of_m(row.weight, score, *action.n_m) & row.mask
            for row, score in zip(rows, scores, strict=True)
        ]
    else:
        gone, missing = _gone(rows, scores, shares, action, number)
        found = [
            ~mask.to(row.mask.device).view_as(row.mask) & row.mask
            for mask, row in zip(gone, rows, strict=True)
        ]
    if not isinstance(criterion, Repairing):
        return found, missing
    kept = []
    for row, subject, mask, share in zip(rows, subjects, found, shares, strict=True):
        asked = LayerTarget(mask, share, action.n_m)
        made = repaired(criterion, replace(subject, mask=row.mask), asked, statistics)
        with torch.no_grad():
            row.weight.tensor.copy_(made.weight)
        kept.append(made.mask & row.mask)
    return kept, missing


def _gone(
    rows: list[_Row],
    scores: list[Tensor],
    shares: list[float],
    action: Action,
    number: tuple[int, int],
) -> tuple[list[Tensor], int]:
    """Return masks of the single weights that go, and how many fewer went than asked."""
    flat = [score.flatten().cpu() for score in scores]
    if action.ranks_together and action.ratio is not None:
        return lowest_of_all(flat, after_round(action.ratio, *number))
    if isinstance(action.by, Allotting) and action.ratio is not None:
        asked = action.by.counts([row.weight.tensor.shape for row in rows], action.ratio)
        return [lowest(score, count) for score, count in zip(flat, asked, strict=True)], 0
    if ranks_of(action.by) == "row":
        return [
            row.subject.stored(lowest_by_row(row.subject.rows(score), share))
            for row, score, share in zip(rows, scores, shares, strict=True)
        ], 0
    return [
        lowest(score, to_prune(len(score), share))
        for score, share in zip(flat, shares, strict=True)
    ], 0


def _keep_n_of_m(weight: Weight, scores: Tensor, n: int, m: int) -> Tensor:
    last = inputs_last(weight.module, scores)
    kept = keep_n_of_m(last.reshape(-1, last.shape[-1]), n, m)
    return as_stored(weight.module, kept.view(last.shape), weight.tensor)


def _in_scope(
    network: nn.Module, action: Action, inputs: Inputs
) -> tuple[list[Weight], dict[str, str]]:
    """Return the weights in scope, in forward order, and why the others are not."""
    every = weights_in(network)
    called = called_modules(network, inputs)
    spared = {w.label: why_untouched(w) for w in every if w.kind not in MULTIPLIED}
    found = [w for w in every if w.kind in MULTIPLIED]
    spared |= {w.label: "not used in eval mode" for w in found if w.layer not in called}
    found = [w for w in found if w.layer in called]
    found.sort(key=lambda weight: called.index(weight.layer))
    if action.scope == "inner" and found:
        first = next((w for w in found if w.kind == CONVOLUTION), None)
        if first is not None:
            spared[first.label] = FIRST
        spared |= {w.label: OUTPUT for w in found if w.layer == found[-1].layer}
    return [w for w in found if w.label not in spared], spared


def _reached(network: nn.Module, excluded: set[str]) -> float:
    """Return the share at zero of all weights that the ratio is asked of, pruned or not."""
    masks = masks_of(network)
    counted = [weight for weight in weights_in(network) if weight.label not in excluded]
    gone = sum(int((~masks[w.name]).sum()) for w in counted if w.name in masks)
    return gone / sum(weight.tensor.numel() for weight in counted)


def _way_out(network: nn.Module, action: Action, spared: dict[str, str]) -> str:
    """Say what may be pruned where nothing is: what the scope spares, or by another structure."""
    outside = [w for w in weights_in(network) if spared.get(w.label) in (FIRST, OUTPUT)]
    if action.n_m is not None:
        m = action.n_m[1]
        outside = [w for w in outside if fits(inputs_last(w.module, w.tensor), m)]
        others = [w for w in weights_in(network) if w.kind in MULTIPLIED]
        if not outside and others:
            return "choose an M that divides the input widths, or the structure unstructured"
    if action.scope == "inner" and outside:
        return "try --scope all"
    return "choose another criterion, or the structure filter"


def _no_op(rows: list[_Row], action: Action) -> str:
    masked = [row.mask for row in rows if not row.mask.all()]
    if not rows:
        return "nothing would be pruned: every layer in scope has the ratio 0; raise one"
    if action.n_m is not None:
        return f"nothing would be pruned: the masks of the network are {action.structure} already"
    if masked:
        share = 1 - min(float(mask.float().mean()) for mask in masked)
        return (
            f"nothing would be pruned: masks hold up to {100 * share:.3g} % of the weights at zero "
            "already, and a ratio is the share of all weights; give a larger one"
        )
    return "nothing would be pruned: every layer in scope has a single weight"


def _meaning(action: Action, rows: list[_Row], why: set[str]) -> str:
    kinds = Counter(row.weight.kind for row in rows)
    counts = [(kinds[kind], kind) for kind in MULTIPLIED if kinds[kind]]
    parts = [f"{count} {kind}{'s' * (count > 1)}" for count, kind in counts]
    layers = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    spared = ""
    if FIRST in why and OUTPUT in why:
        spared = " (first convolution and classifier spared)"
    elif OUTPUT in why:
        spared = " (output layer spared)"
    if action.n_m is not None:
        n, m = action.n_m
        return f"{m - n} of every {m} weights along the inputs of {layers}{spared}"
    together = ", ranked together" if action.ranks_together else ""
    if action.ranks_together or isinstance(action.by, Allotting):
        share = percent([action.ratio or 0.0])
    else:
        share = percent([row.ratio for row in rows])
    return f"{share} of the weights of {layers}{together}{spared}"
