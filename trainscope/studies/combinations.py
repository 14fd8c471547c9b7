"""Which filters of some layers can be kept together: all combinations, or some drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np

from trainscope.errors import ActionError
from trainscope.sparsify.candidate import Candidate

MOST = 200_000
"""Combinations that are tried one by one."""
Kept = tuple[tuple[int, ...], ...]
"""The filters that stay, sorted, of each layer in order."""


def check_counts(layers: Sequence[Candidate], keep: Sequence[int]) -> None:
    """Refuse numbers of filters that cannot stay.

    Raises:
        ActionError: One is out of range, or parts that must lose equally many cannot.
    """
    for layer, count in zip(layers, keep, strict=True):
        if not 0 < count < layer.count:
            raise ActionError(
                f"{layer.name} has {layer.count} filters, and {count} are to stay: keep from 1 to "
                f"{layer.count - 1}"
            )
        if count % layer.chunks:
            raise ActionError(
                f"the {layer.chunks} parts of {layer.name} must lose equally many filters, so "
                f"{count} cannot stay: keep a multiple of {layer.chunks}"
            )


def count_of(layers: Sequence[Candidate], keep: Sequence[int]) -> int:
    """Return how many combinations there are."""
    found = 1
    for layer, count in zip(layers, keep, strict=True):
        ways = math.comb(layer.count // layer.chunks, count // layer.chunks)
        found *= ways if layer.aligned else ways**layer.chunks
    return found


def all_of(layers: Sequence[Candidate], keep: Sequence[int]) -> Iterator[Kept]:
    """Yield every combination, in lexicographic order.

    Raises:
        ActionError: There are more than `MOST`.
    """
    total = count_of(layers, keep)
    if total > MOST:
        raise ActionError(
            f"there are {total:.3g} combinations, which are too many to try one by one (at most "
            f"{MOST:,}): have some drawn at random with --candidates N"
        )
    yield from product(*(list(_of(*each)) for each in zip(layers, keep, strict=True)))


def some_of(layers: Sequence[Candidate], keep: Sequence[int], count: int, seed: int) -> list[Kept]:
    """Return different combinations, drawn uniformly; all of them where there are no more.

    Args:
        layers: Whose filters.
        keep: How many of each stay.
        count: Combinations wanted.
        seed: Of the draw, which is the same whatever is drawn from.
    """
    if count >= count_of(layers, keep):
        return list(all_of(layers, keep))
    rng = np.random.default_rng(seed)
    found: dict[Kept, None] = {}
    while len(found) < count:
        found[tuple(_draw(*each, rng) for each in zip(layers, keep, strict=True))] = None
    return list(found)


def _of(layer: Candidate, keep: int) -> Iterator[tuple[int, ...]]:
    size, each = layer.count // layer.chunks, keep // layer.chunks
    if layer.aligned:
        for places in combinations(range(size), each):
            yield tuple(part * size + k for part in range(layer.chunks) for k in places)
        return
    parts = [list(combinations(range(p * size, (p + 1) * size), each)) for p in range(layer.chunks)]
    for chosen in product(*parts):
        yield tuple(k for part in chosen for k in part)


def _draw(layer: Candidate, keep: int, rng: np.random.Generator) -> tuple[int, ...]:
    size, each = layer.count // layer.chunks, keep // layer.chunks

    def places() -> list[int]:
        return sorted(rng.choice(size, each, replace=False).tolist())

    if layer.aligned:
        drawn = places()
        return tuple(part * size + k for part in range(layer.chunks) for k in drawn)
    return tuple(part * size + k for part in range(layer.chunks) for k in places())
