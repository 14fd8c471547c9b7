"""Pairs of pruning methods among groups: their cells under two setups, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

from trainscope.records import Json
from trainscope.studies.advice import retrain_command
from trainscope.studies.crossing import CrossVerdict, Outcome, cross_validate
from trainscope.studies.facts import SCRATCH, method_of, ratio_of, schedule_of, speedup_of
from trainscope.studies.groups import Group
from trainscope.studies.significance import LEVEL, Contrast, welch

MOST_METHODS = 4
"""With more methods than this, pairs are too many to read; none is tested."""
MOST_COMMANDS = 6

Arena = dict[str, dict[Hashable, Group]]
"""Settings that may be compared: by method, then by retraining setup."""


@dataclass(frozen=True)
class Duel:
    """Two methods at one compression.

    Attributes:
        where: What they were compared at, like "ratio 0.9".
        methods: Their names.
        setups: The names of the setups: one that both have, or each one's best.
        verdict: The cross-validated verdict; None where cells are missing or one setup is shared.
        difference: First minus second under the one shared setup; None otherwise.
        missing: Commands that would fill the missing cells, one a seed.
    """

    where: str
    methods: tuple[str, str]
    setups: tuple[str, ...]
    verdict: CrossVerdict | None
    difference: Contrast | None
    missing: tuple[str, ...]

    @property
    def decided(self) -> bool:
        """Return whether the cross-validation has an outcome."""
        return self.verdict is not None and self.verdict.outcome is not Outcome.UNDECIDED

    def sentence(self) -> str:
        """Return the outcome in words."""
        first, second = self.methods
        if self.verdict is not None:
            return self.verdict.sentence
        if self.difference is not None:
            part = self.difference
            if part.significant:
                ahead, behind = (first, second) if part.value > 0 else (second, first)
                return (
                    f"Under {self.setups[0]}, {ahead} is ahead of {behind} by "
                    f"{abs(part.value):.2f} points (p = {part.p:.2g}); one setup does not show "
                    "that it is the better method: cross-validate with another LR schedule."
                )
            if math.isinf(part.low):
                ahead, behind = (first, second) if part.value > 0 else (second, first)
                return (
                    f"Under {self.setups[0]}, {ahead} ends {abs(part.value):.2f} points above "
                    f"{behind} (one seed: no test)."
                )
            return (
                f"Under {self.setups[0]}, {first} and {second} do not differ at the level of "
                f"{LEVEL:.0%} ({part.value:+.2f} points, p = {part.p:.2g})."
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


def duels(groups: Sequence[Group]) -> list[Duel]:
    """Return every pair of methods that was run at the same compression from known schedules."""
    found = []
    for where, arena in arenas(groups).items():
        if 2 <= len(arena) <= MOST_METHODS:
            found += [_duel(where, arena, pair) for pair in combinations(arena, 2)]
    return found


def arenas(groups: Sequence[Group]) -> dict[str, Arena]:
    """Return what may be compared, by its name: method, then retraining setup, then setting.

    Criteria at one ratio may differ a little in speedup; a ratio alone names the arena. Where only
    the speedup is known, settings within a tenth share one.

    Args:
        groups: The settings; those of unknown method, schedule or accuracy are left out.
    """
    found: dict[str, Arena] = {}
    keys = [_arena(item) for item in groups]
    told = [k for k in range(4) if len({key[k] for key in keys if key is not None}) > 1]
    for item, key in zip(groups, keys, strict=True):
        if key is None:
            continue
        method, kind = method_of(item.first), str(item.first.kind)
        name = f"{method}" if kind == "retrain" else f"{method}, {kind}"
        where = " ".join(key[k] for k in sorted({*told, 3}))
        found.setdefault(where, {}).setdefault(name, {})[_setup(item)] = item
    return found


def _arena(item: Group) -> tuple[str, str, str, str] | None:
    run, method = item.first, method_of(item.first)
    if method in (None, "dense") or item.mean is None or schedule_of(run) is None:
        return None
    if run.kind in SCRATCH:  # compared by budget (SX-A, SX-B), not by retraining setup
        return None
    ratio, speedup = ratio_of(run), speedup_of(run)
    size = f"{speedup or 0:.1f}×" if ratio is None else f"ratio {ratio:g}"
    structure = run.pruning.structure if run.pruning else None
    return run.data or "", run.architecture or "", structure or "", size


def _setup(item: Group) -> Hashable:
    schedule = schedule_of(item.first)
    assert schedule is not None
    kept = {k: v for k, v in item.first.settings.items() if k not in ("seed", "accuracy")}
    return str(schedule), schedule.total, repr(sorted(kept.items()))


def _duel(where: str, arena: Arena, pair: tuple[str, str]) -> Duel:
    one, two = (arena[name] for name in pair)
    best = [max(cells, key=lambda key: cells[key].mean or 0.0) for cells in (one, two)]
    if best[0] == best[1]:
        shared = [key for key in one if key in two and key != best[0]]
        if not shared:
            difference = welch(one[best[0]].finals, two[best[0]].finals)
            return Duel(where, pair, (_name(one[best[0]]),), None, difference, ())
        best[1] = shared[0]
    first, second = best
    setups = (_name(one.get(first) or two[first]), _name(two.get(second) or one[second]))
    if first in two and second in one:
        verdict = cross_validate(
            one[first].finals,
            two[first].finals,
            one[second].finals,
            two[second].finals,
            methods=pair,
            setups=setups,
        )
        return Duel(where, pair, setups, verdict, None, ())
    missing = []
    for cells, key, other in ((two, first, one), (one, second, two)):
        if key not in cells:
            method, setup = next(iter(cells.values())), other[key]
            schedule = schedule_of(setup.first)
            assert schedule is not None
            missing += [
                retrain_command(
                    method.first, schedule, setup.first, base=method.first.base, seed=run.seed
                )
                for run in setup.runs
            ]
    return Duel(where, pair, setups, None, None, tuple(missing[:MOST_COMMANDS]))


def _name(item: Group) -> str:
    schedule = schedule_of(item.first)
    assert schedule is not None
    return f"{schedule} ({schedule.total} epochs)"
