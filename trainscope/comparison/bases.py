"""Base models: which runs were pruned from, and whether settings share them."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.facts import SCRATCH, is_digest, write_base
from trainscope.comparison.groups import Group
from trainscope.comparison.reasons import MOST_VALUES, Disagreement, listed, numbers, who
from trainscope.records import Run
from trainscope.records.run import UNKNOWN


def base_of(run: Run) -> str | None:
    """Return the base model by digest or name; None where it is not known."""
    if run.kind in SCRATCH:
        return "none: random weights"
    return None if run.base == UNKNOWN else run.base


def base_models(groups: Sequence[Group]) -> list[Disagreement]:
    """Return why base models are not the same: every seed may have its own, the same in all."""
    values = [[base_of(run) for run in item.runs] for item in groups]
    unknown = [item.label for item, held in zip(groups, values, strict=True) if None in held]
    if unknown:
        apart = _told_apart(groups)
        words = f"base models are unknown for {who(unknown, len(groups))}{apart}"
        return [Disagreement(words, bool(apart))]
    sets = [frozenset(map(str, held)) for held in values]
    if len(set(sets)) == 1:
        return []
    common, union = frozenset.intersection(*sets), frozenset.union(*sets)
    if common:
        lacks = [item.label for item, held in zip(groups, sets, strict=True) if held != union]
        gone = [write_base(base) for base in sorted(union - common)]
        are = "are" if len(gone) > 1 else "is"
        words = f"base models {listed(gone, MOST_VALUES)} {are} not among those of "
        return [Disagreement(words + listed(lacks, MOST_VALUES), True)]
    scratch = any(item.first.kind in SCRATCH for item in groups)
    forms = {is_digest(base) for base in union}
    everything = [base for held in sets for base in sorted(held)]
    names = listed([write_base(base) for base in dict.fromkeys(everything)], MOST_VALUES)
    if len(forms) > 1 and not scratch:
        words = f"base models are unknown to be the same: {names}, some by digest and some by name"
        return [Disagreement(words, False)]
    return [Disagreement(f"base models {names}", True)]


def _told_apart(groups: Sequence[Group]) -> str:
    """Tell unknown base models apart by their accuracies before pruning, where those differ."""
    found = [item.first.pretraining for item in groups]
    known = {p.accuracy for p in found if p is not None and p.accuracy is not None}
    if len(known) < 2:
        return ""
    return f", and differ: {numbers(sorted(known), '{:g}')} % before pruning"
