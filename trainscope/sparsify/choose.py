"""Chooses what goes: the lowest scores, by layer or over all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from trainscope.sparsify.candidate import Candidate, Selection, some
from trainscope.sparsify.ratios import to_prune


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` lowest of some scores [n]; of equal ones the first are kept."""
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if count <= 0:
        return mask
    if count >= len(scores):
        return ~mask
    threshold = torch.kthvalue(scores, count).values
    mask = scores < threshold
    ties = torch.nonzero(scores == threshold).flatten()
    mask[ties[len(ties) - (count - int(mask.sum())) :]] = True
    return mask


def lowest_by_row(scores: Tensor, ratio: float) -> Tensor:
    """Return a mask of the lowest of each row of scores [rows, k], as many of each, up to one.

    Ceil(ratio * all) go: what does not divide by the rows goes to those whose next one is lowest.

    Args:
        scores: The scores.
        ratio: The share to prune.
    """
    count = len(scores)
    asked = to_prune(scores.numel(), ratio)
    each = asked // count
    order = scores.flip(1).argsort(dim=1, stable=True)  # of equal ones the last goes first
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask.scatter_(1, order[:, :each], True)
    if asked > each * count:
        after = order[:, each : each + 1]
        more = lowest(scores.flip(1).gather(1, after).flatten(), asked - each * count)
        mask.scatter_(1, after, more.unsqueeze(1))
    return mask.flip(1)


def lowest_of_all(
    scores: Sequence[Tensor], ratio: float, gone: int = 0
) -> tuple[list[Tensor], int]:
    """Return masks of the lowest scores over several layers, at least one of each layer kept.

    The best of each layer (the first of equal ones) is kept whatever the others are, so that
    ceil(ratio * total) go wherever that many can. A layer of which nothing is left (all its scores
    are minus infinity) has none to keep.

    Args:
        scores: The scores [n] of each layer.
        ratio: The share of all of them to prune.
        gone: How many went before, which have no scores any more and count in the share.

    Returns:
        The masks, and how many fewer went than the ratio asks.
    """
    total = sum(len(layer) for layer in scores)
    protected, kept = [], 0
    for layer in scores:
        held = layer.clone()
        if layer.max() > -torch.inf:
            held[int(torch.nonzero(layer == layer.max())[0])] = torch.inf
            kept += 1
        protected.append(held)
    asked = max(to_prune(total + gone, ratio) - gone, 0)
    count = min(asked, total - kept)
    mask = lowest(torch.cat(protected), count)
    return list(torch.split(mask, [len(layer) for layer in scores])), asked - count


def choose(
    candidates: Sequence[Candidate],
    scores: Sequence[Tensor],
    ratios: Sequence[float],
    *,
    global_ratio: float | None = None,
    gone: Mapping[str, int] = MappingProxyType({}),
) -> Selection:
    """Choose the filters that go.

    Args:
        candidates: What can be cut.
        scores: The scores [n] of each one's filters.
        ratios: The share of each that goes; 0 spares it.
        global_ratio: The share of all together, ranked together, in the place of `ratios` above 0.
        gone: How many filters of each candidate went before, which count in its share.

    Returns:
        Indices by candidate, and notes.
    """
    chosen = Selection()
    rows = [row for row in zip(candidates, scores, ratios, strict=True) if row[2] > 0]
    if global_ratio is not None:
        _choose_globally(chosen, [row[:2] for row in rows], global_ratio, gone)
        return chosen
    for candidate, score, ratio in rows:
        mask = _by_chunk(candidate, score, ratio, gone.get(candidate.name, 0))
        chosen.add(candidate.name, mask)
        if not mask.any() and candidate.name not in gone:
            chosen.notes.append(f"{candidate.name} has no filter to spare")
    parts = [candidate for candidate, _, _ in rows if candidate.chunks > 1]
    if parts:
        chosen.notes.append(
            f"cut evenly, each part by its own share: {some([part.name for part in parts])} "
            "(they meet a grouped convolution, a group norm or the heads of an attention)"
        )
    return chosen


def _by_chunk(candidate: Candidate, score: Tensor, ratio: float, gone: int) -> Tensor:
    parts, before = score.view(candidate.chunks, -1), gone // candidate.chunks
    count = max(to_prune(parts.shape[1] + before, ratio) - before, 0)
    if candidate.aligned and candidate.chunks > 1:
        return lowest(parts.mean(dim=0), count).repeat(candidate.chunks)
    return torch.cat([lowest(part, count) for part in parts])


def _choose_globally(
    chosen: Selection,
    rows: Sequence[tuple[Candidate, Tensor]],
    ratio: float,
    gone: Mapping[str, int],
) -> None:
    ranked = [row for row in rows if row[0].chunks == 1]
    left = [candidate.name for candidate, _ in rows if candidate.chunks > 1]
    if left:
        why = "each part of a grouped convolution must lose equally many"
        chosen.notes.append(f"left out of the global ranking: {some(left)} ({why})")
    if not ranked:
        return
    before = sum(gone.get(candidate.name, 0) for candidate, _ in ranked)
    masks, missing = lowest_of_all([score for _, score in ranked], ratio, before)
    for (candidate, _), mask in zip(ranked, masks, strict=True):
        chosen.add(candidate.name, mask)
    if missing:
        chosen.notes.append(f"{missing} filters fewer went: each layer keeps one")
