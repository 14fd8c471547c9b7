"""Pairs of pruning methods among groups: their cells under two setups, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from trainscope.comparison.bases import same_bases
from trainscope.comparison.commands import retrain_line
from trainscope.comparison.crossing import CrossOutcome, CrossVerdict, cross_validate
from trainscope.comparison.facts import (
    SCRATCH,
    method_of,
    ratio_of,
    schedule_of,
    speedup_of,
)
from trainscope.comparison.optimizer_settings import stated
from trainscope.comparison.setting_identity import schedule_key, settings_key
from trainscope.comparison.settings import Setting
from trainscope.comparison.significance import LEVEL, Contrast, welch
from trainscope.records import Json, Metric
from trainscope.records.metric import ACCURACY
from trainscope.records.text import count_of
from trainscope.training.shapes import in_words

MOST_METHODS = 4
"""With more methods than this at one compression, no pair is tested: see `crowded`."""
MOST_COMMANDS = 6

Arena = dict[str, dict[Hashable, Setting]]
"""Settings that may be compared: by method, then by retraining setup."""


@dataclass(frozen=True)
class Duel:
    """Two methods at one compression.

    Attributes:
        where: What they were compared at, like "ratio 0.9".
        methods: Their names.
        setups: The names of the setups: one that both have, or each one's best.
        verdict: The cross-validated verdict; None where cells are missing or one setup is shared.
        difference: By how much the first is better under the one shared setup; None otherwise.
        missing: Commands that would fill the missing cells, one a seed.
        bases: What the base models do to the outcome, a sentence; "" where they are the same.
        metric: What they are told by.
    """

    where: str
    methods: tuple[str, str]
    setups: tuple[str, ...]
    verdict: CrossVerdict | None
    difference: Contrast | None
    missing: tuple[str, ...]
    bases: str = ""
    metric: Metric = ACCURACY

    @property
    def decided(self) -> bool:
        """Return whether the cross-validation has an outcome."""
        return self.verdict is not None and self.verdict.outcome is not CrossOutcome.UNDECIDED

    def sentence(self) -> str:
        """Return the outcome in words."""
        return f"{self._outcome()} {self.bases}".strip()

    def _outcome(self) -> str:
        first, second = self.methods
        if self.bases and self.verdict is None and self.difference is None:
            return ""
        if self.verdict is not None:
            return self.verdict.sentence
        if self.difference is not None:
            part = self.difference
            if part.significant:
                ahead, behind = (first, second) if part.value > 0 else (second, first)
                return (
                    f"Under {self.setups[0]}, {ahead} is ahead of {behind} by "
                    f"{self.metric.gap(abs(part.value))} (p = {part.p:.2g}); one setup does not "
                    "show that it is the better method: cross-validate with another LR schedule."
                )
            if math.isinf(part.low):
                ahead, behind = (first, second) if part.value > 0 else (second, first)
                return (
                    f"Under {self.setups[0]}, {ahead} ends {self.metric.gap(abs(part.value))} "
                    f"{self.metric.ahead} {behind} (one seed: no test)."
                )
            return (
                f"Under {self.setups[0]}, {first} and {second} do not differ at the level of "
                f"{LEVEL:.0%} ({self.metric.gap(self.metric.sign * part.value, sign='+')}, "
                f"p = {part.p:.2g})."
            )
        return (
            f"{first} was run under {self.setups[0]} and {second} under {self.setups[1]}: to tell "
            "method from setup, run each under the other's setup too."
        )

    def as_dict(self) -> Json:
        """Return the fields for JSON."""
        return {
            "where": self.where,
            "methods": list(self.methods),
            "setups": list(self.setups),
            "sentence": self.sentence(),
            "cross": None if self.verdict is None else self.verdict.as_dict(),
            "missing": list(self.missing),
        }


def duels(groups: Sequence[Setting]) -> list[Duel]:
    """Return every pair of methods that was run at the same compression from known schedules."""
    found = []
    for where, arena in arenas(groups).items():
        if 2 <= len(arena) <= MOST_METHODS:
            found += [_duel(where, arena, pair) for pair in combinations(arena, 2)]
    return found


def crowded(groups: Sequence[Setting]) -> list[str]:
    """Say where methods are too many to test in pairs, and how to narrow."""
    return [
        f"At {where}, {len(arena)} methods make {math.comb(len(arena), 2)} pairs, and of so many "
        "tests some would find a difference by chance: none was made. Choose the methods before "
        f"you look, and compare {MOST_METHODS} at most at a time."
        for where, arena in arenas(groups).items()
        if len(arena) > MOST_METHODS
    ]


def arenas(groups: Sequence[Setting]) -> dict[str, Arena]:
    """Return what may be compared, by its name: method, then retraining setup, then setting.

    Criteria at one ratio may differ a little in speedup; a ratio alone names the arena. Where only
    the speedup is known, settings within a tenth share one.

    Args:
        groups: The settings; those of unknown method, schedule or accuracy, and those that did not
            finish, are left out.
    """
    keys = [_arena(item) for item in groups]
    cells = [
        (key, _method(item), _setup(item))
        for item, key in zip(groups, keys, strict=True)
        if key is not None
    ]
    twice = {cell[0] for cell in cells if cells.count(cell) > 1}
    told = [k for k in range(5) if len({key[k] for key in keys if key is not None}) > 1]
    found: dict[str, Arena] = {}
    for item, key in zip(groups, keys, strict=True):
        if key is None:
            continue
        where = " ".join(key[k] for k in sorted({*told, 4}))
        if key in twice:  # one seed with several base models: each is compared by itself
            where += f" from base {item.first.base[:12]}"
        found.setdefault(where, {}).setdefault(_method(item), {})[_setup(item)] = item
    return found


def _method(item: Setting) -> str:
    method, kind = method_of(item.first), str(item.first.kind)
    return f"{method}" if kind == "retrain" else f"{method}, {kind}"


def _arena(item: Setting) -> tuple[str, str, str, str, str] | None:
    run, method = item.first, method_of(item.first)
    if method in (None, "dense") or item.mean is None or schedule_of(run) is None:
        return None
    if not item.finished:
        return None
    if run.kind in SCRATCH:  # compared by budget (SX-A, SX-B), not by retraining setup
        return None
    ratio, speedup = ratio_of(run), speedup_of(run)
    size = f"{speedup or 0:.1f}×" if ratio is None else f"ratio {ratio:g}"
    structure = run.pruning.structure if run.pruning else None
    return run.metric.label, run.data or "", run.architecture or "", structure or "", size


def _setup(item: Setting) -> Hashable:
    return schedule_key(item.first), settings_key(item.first)


def _names(one: Setting, other: Setting) -> tuple[str, str]:
    """Return the names of two setups; of one LR schedule, with the settings that differ."""
    names = _name(one), _name(other)
    if names[0] != names[1]:
        return names
    own, others = stated(one.first), stated(other.first)
    keys = [key for key in {**own, **others} if own.get(key) != others.get(key)]

    def words(values: Mapping[str, object]) -> str:
        told = (f"{key.replace('_', ' ')} {values.get(key, 'not stated')}" for key in keys)
        return " and ".join(told)

    return f"{names[0]} with {words(own)}", f"{names[1]} with {words(others)}"


def _duel(where: str, arena: Arena, pair: tuple[str, str]) -> Duel:
    one, two = (arena[name] for name in pair)
    metric = next(iter(one.values())).metric
    best = [max(cells, key=lambda key: cells[key].quality) for cells in (one, two)]
    if best[0] == best[1]:
        shared = [key for key in one if key in two and key != best[0]]
        if not shared:
            return _single(where, pair, one[best[0]], two[best[0]])
        best[1] = shared[0]
    first, second = best
    setups = _names(one.get(first) or two[first], two.get(second) or one[second])
    if first in two and second in one:
        square = (one[first], two[first], one[second], two[second])
        held, told = same_bases(square, pair)
        if held is None:
            return Duel(where, pair, setups, None, None, (), told, metric)
        verdict = cross_validate(
            *(item.finals for item in held), methods=pair, setups=setups, metric=metric
        )
        return Duel(where, pair, setups, verdict, None, (), told, metric)
    missing: list[str] = []
    for cells, key, other in ((two, first, one), (one, second, two)):
        if key not in cells:
            method, setup = next(iter(cells.values())), other[key]
            schedule = schedule_of(setup.first)
            assert schedule is not None
            missing += retrain_line(
                method.first,
                schedule,
                setup.first,
                base=method.first.base,
                seeds=[run.seed for run in setup.runs],
            )
    return Duel(where, pair, setups, None, None, tuple(missing[:MOST_COMMANDS]), "", metric)


def _single(where: str, pair: tuple[str, str], one: Setting, two: Setting) -> Duel:
    held, told = same_bases((one, two), pair)
    difference = None if held is None else welch(held[0].qualities, held[1].qualities)
    return Duel(where, pair, (_name(one),), None, difference, (), told, one.metric)


def _name(item: Setting) -> str:
    schedule = schedule_of(item.first)
    assert schedule is not None
    return f"{in_words(schedule)} ({count_of(schedule.total, 'epoch')})"
