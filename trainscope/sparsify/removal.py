"""What a structure reports back of what it did to a network in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainscope.records import LayerChange


@dataclass(frozen=True)
class Removal:
    """What was done.

    Attributes:
        meaning: What the ratio is a share of, in words.
        layers: The layers changed, with their filters or weights before and after.
        removed: The outputs that went, by layer (norms too); empty where only masks changed.
        notes: What was left alone and why, each one sentence.
        spared: Why layers were not pruned, by name.
        reached: The share that is gone of all that the ratio was asked of.
        heads: The units of heads that went, by attention.
        touched: Other layers whose weights were cut, which `layers` does not name.
        scope: The scope that was cut; None for the one that was asked for.
    """

    meaning: str
    layers: tuple[LayerChange, ...]
    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spared: Mapping[str, str] = field(default_factory=dict)
    reached: float | None = None
    heads: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    scope: str | None = None


def together(first: Removal, second: Removal) -> Removal:
    """Return what two structures did, one after the other, as one."""
    spared = {**first.spared, **second.spared}
    return Removal(
        f"{first.meaning} and {second.meaning}",
        (*first.layers, *second.layers),
        {**first.removed, **second.removed},
        (*first.notes, *second.notes),
        {name: why for name, why in spared.items() if name not in first.touched | second.touched},
        second.reached,
        {**first.heads, **second.heads},
        first.touched | second.touched,
        second.scope,
    )


def percent(ratios: Sequence[float]) -> str:
    """Return ratios as a person reads them: "90 %", or "21 % to 60 %"."""
    low, high = (f"{100 * ratio:.6g} %" for ratio in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"
