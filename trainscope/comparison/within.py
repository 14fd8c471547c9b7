"""Fairness inside a set of settings that is no fair comparison as a whole."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from trainscope.comparison.duels import arenas
from trainscope.comparison.facts import method_of, ratio_of, speedup_of
from trainscope.comparison.fairness import fairness
from trainscope.comparison.reasons import listed
from trainscope.comparison.settings import Setting
from trainscope.comparison.setups import CHAIN, Fairness
from trainscope.comparison.sizes import COMPRESSION_TOLERANCE


def within(groups: Sequence[Setting]) -> tuple[str | None, tuple[str, ...]]:
    """Judge the methods of every schedule and compression by themselves.

    Returns:
        The loosest setup of all, None if any is unfair; and the methods, where others are not among
        them, as nobody knows their schedule.
    """
    found: list[Fairness] = []
    judged: list[Setting] = []
    for arena in arenas(groups).values():
        by_setup: dict[Hashable, list[Setting]] = {}
        for cells in arena.values():
            for setup, item in cells.items():
                by_setup.setdefault(setup, []).append(item)
        several = [held for held in by_setup.values() if len(held) > 1]
        found += [fairness(held) for held in several]
        judged += [item for held in several for item in held]
    if not found or not all(one.fair for one in found):
        return None, ()
    loosest = min((one.strictest for one in found if one.strictest in CHAIN), key=CHAIN.index)
    among = tuple(dict.fromkeys(str(method_of(item.first)) for item in judged))
    others = {str(method_of(item.first)) for item in groups} - set(among)
    return loosest, among if others else ()


def one_at_a_time(groups: Sequence[Setting]) -> str:
    """Judge settings of one data set, network and compression by themselves, where these differ.

    Those of one metric are always judged by themselves.

    Returns:
        What the strictest of these sets is, one sentence; "" where no two settings share all of it.
    """
    sizes = _sizes(groups)
    keys: list[tuple[str, ...]] = [
        (item.metric.label, item.first.data or "", item.first.architecture or "", size)
        for item, size in zip(groups, sizes, strict=True)
    ]
    names = ("metric", "data set", "network", "compression")
    told = [k for k in range(4) if len({key[k] for key in keys}) > 1]
    sets: dict[tuple[str, ...], list[Setting]] = {}
    for item, key in zip(groups, keys, strict=True):
        sets.setdefault(key, []).append(item)
    judged = [(key, held, fairness(held)) for key, held in sets.items() if len(held) > 1]
    if not judged or not told:
        return ""
    key, held, best = max(judged, key=lambda one: (_rank(one[2]), len(one[1])))
    what = f"One {listed([names[k] for k in told])} at a time"
    where = " ".join(key[k] for k in told if key[k])
    count = f"{where}, {len(held)} settings"
    if best.strictest is None:
        return f"{what}, they are none either ({count}): {best.checks[0].reasons[0]}."
    if best.fair:
        return f"{what}, {best.strictest} holds at best ({count})."
    failed = best.failures[0]
    return f"{what}, {best.strictest} at best ({count}); {failed[0][0]} fails: {failed[1][0]}."


def _rank(found: Fairness) -> tuple[bool, int]:
    """Return how strict an outcome is; unfair budgets of pipelines come after S2."""
    if found.strictest is None:
        return False, -1
    place = CHAIN.index(found.strictest) if found.strictest in CHAIN else CHAIN.index("S3.1")
    return found.fair, place


def _sizes(groups: Sequence[Setting]) -> list[str]:
    """Name every setting's compression; speedups that count as the same have one name."""
    speedups = [speedup_of(item.first) for item in groups]
    spans: list[list[float]] = []
    for speedup in sorted({speedup for speedup in speedups if speedup is not None}):
        if spans and speedup <= spans[-1][0] * (1 + COMPRESSION_TOLERANCE):
            spans[-1].append(speedup)
        else:
            spans.append([speedup])
    name = {
        speedup: f"{span[0]:.2f}×" if len(span) == 1 else f"{span[0]:.2f}× to {span[-1]:.2f}×"
        for span in spans
        for speedup in span
    }
    found = []
    for item, known in zip(groups, speedups, strict=True):
        ratio = ratio_of(item.first)
        size = "compression unknown" if ratio is None else f"ratio {ratio:g}"
        found.append(size if known is None else name[known])
    return found
