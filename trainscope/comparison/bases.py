"""Base models: which runs were pruned from, and whether settings share them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from trainscope.comparison.facts import SCRATCH, is_digest, write_base
from trainscope.comparison.reasons import MOST_VALUES, Disagreement, listed, numbers, who
from trainscope.comparison.settings import Setting
from trainscope.records import Run
from trainscope.records.run import UNKNOWN

MOST_BASES = 3


def base_of(run: Run) -> str | None:
    """Return the base model by digest or name; None where it is not known."""
    if run.kind in SCRATCH:
        return "none: random weights"
    return None if run.base == UNKNOWN else run.base


def base_models(groups: Sequence[Setting]) -> list[Disagreement]:
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


def _told_apart(groups: Sequence[Setting]) -> str:
    """Tell unknown base models apart by their accuracies before pruning, where those differ."""
    found = [item.first.pretraining for item in groups]
    known = {p.accuracy for p in found if p is not None and p.accuracy is not None}
    if len(known) < 2:
        return ""
    return f", and differ: {numbers(sorted(known), '{:g}')} % before pruning"


def same_bases(
    cells: Sequence[Setting], methods: tuple[str, str]
) -> tuple[tuple[Setting, ...] | None, str]:
    """Hold cells to the base models that all of them have, and say what follows from the others.

    Args:
        cells: Cells of two methods, the first method's at even places.
        methods: Their names.

    Returns:
        The cells, None where they share no base model; and a sentence, "" where all is the same.
    """
    sets = [{run.base for run in item.runs} for item in cells]
    common, union = set.intersection(*sets), set.union(*sets)
    if common - {UNKNOWN}:
        kept = common - {UNKNOWN}
        held = tuple(
            replace(item, runs=tuple(run for run in item.runs if run.base in kept))
            for item in cells
        )
        if union == kept:
            return held, ""
        return held, f"Told from the {len(kept)} of {len(union)} base models that both share."
    pretraining = [run.pretraining for item in cells for run in item.runs]
    before = {p.accuracy for p in pretraining if p is not None and p.accuracy is not None}
    if UNKNOWN in union and len(before) < 2:
        return tuple(cells), "This holds if their base models are the same, which is not known."
    told = "; ".join(f"{name}: {', '.join(_bases(cells[k::2]))}" for k, name in enumerate(methods))
    lead = [statistics.fmean(item.quality for item in cells[k::2]) for k in (0, 1)]
    metric = cells[0].metric
    ahead, behind = methods if lead[0] >= lead[1] else methods[::-1]
    return None, (
        f"{ahead} ends {metric.gap(abs(lead[0] - lead[1]))} {metric.ahead} {behind}, but from "
        f"another base model ({told}): whether the method or the base model did it cannot be "
        "told."
    )


def _bases(cells: Sequence[Setting]) -> list[str]:
    """Name the base models of some cells, by their accuracy before pruning where unknown."""
    found = []
    for run in (run for item in cells for run in item.runs):
        before = None if run.pretraining is None else run.pretraining.accuracy
        unknown = "unknown" if before is None else f"{before:g} % before pruning"
        found.append(unknown if run.base == UNKNOWN else write_base(run.base))
    return sorted(set(found))[:MOST_BASES]
