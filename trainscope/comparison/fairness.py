"""Which comparison setup a set of runs satisfies, and what keeps it from a stricter one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainscope.comparison.across import (
    fair_among_methods,
    one_overall_schedule,
    several_methods,
    trades_epochs,
)
from trainscope.comparison.advice import advise
from trainscope.comparison.agreement import disagreements
from trainscope.comparison.grounds import Known, share
from trainscope.comparison.groups import Group, group
from trainscope.comparison.reasons import Disagreement, listed
from trainscope.comparison.setups import (
    CROSSING,
    ONE_SCHEDULE,
    RECOMMENDED,
    SETUPS,
    STRICTEST,
    Setup,
)
from trainscope.errors import RecordError
from trainscope.records import Json, Run

CHAIN = tuple(setup.name for setup in SETUPS)
MOST_REASONS = 2
"""So many reasons are given in one sentence."""


@dataclass(frozen=True, slots=True)
class Check:
    """One setup, tried on the runs.

    Attributes:
        setup: Its name.
        meaning: What it asks for.
        holds: Whether the runs satisfy it.
        applies: False where the setup is not the one to ask for: a crossing one where the pipelines
            are alike, one of the S setups where pipelines follow one overall LR schedule.
        reasons: What differs or is not known, each one sentence; empty where it holds.
    """

    setup: str
    meaning: str
    holds: bool
    applies: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fairness:
    """How fair a comparison is.

    Attributes:
        strictest: The strictest setup that holds; None where not even S1 does.
        checks: Every setup with the reasons against it.
        advice: What would make the comparison fair, each one sentence or command.
        one_network: All runs retrain one pruned network, so they compare retraining alone.
        pipelines: A budget or an overall LR schedule is what they share, not a base model.
        several: Pruning methods differ that do not meet S3.2 among themselves.
        possible: The strictest of the S setups that nothing known rules out: what is unknown is
            taken to be the same.
        beside: What no setup asks for and a reader should know, each one sentence.
    """

    strictest: str | None
    checks: tuple[Check, ...]
    advice: tuple[str, ...] = ()
    one_network: bool = False
    pipelines: bool = False
    several: bool = False
    possible: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def fair(self) -> bool:
        """Return whether it is S3.2 or stricter between methods, or S4.2 or SX between pipelines.

        Pruning methods that differ and do not meet S3.2 among themselves are not: what one gains
        may come from its base model or its retraining.
        """
        if self.pipelines:
            return not self.several
        return self.strictest in CHAIN[CHAIN.index(RECOMMENDED) :]

    @property
    def failures(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Return the setups that fail, those together that fail for the same reasons.

        A reason that a looser setup fails for is told there, once.
        """
        found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        told: set[str] = set()
        for check in self.checks:
            if check.holds or not check.applies:
                continue
            crossing = check.setup not in CHAIN
            new = tuple(why for why in check.reasons if why not in told)
            told |= set(new)
            if new or not found or crossing:
                found.append(((check.setup,), new))
            else:
                names, why = found[-1]
                found[-1] = ((*names, check.setup), why)
        return tuple(found)

    def sentence(self) -> str:
        """Return the outcome in one sentence, and what stands beside it."""
        return " ".join((self._outcome(), *self.beside))

    def _outcome(self) -> str:
        if self.strictest is None:
            return self._nothing()
        held = next(check for check in self.checks if check.setup == self.strictest)
        if self.fair:
            what = "Fair between pipelines" if self.pipelines else "Fair"
            return f"{what}: {held.setup} holds ({held.meaning})."
        if self.one_network:
            return (
                "These runs retrain one pruned network, so they tell retraining apart, not pruning "
                f"methods; as a comparison of methods they would be {held.setup} at best."
            )
        names, why = next((part for part in self.failures if part[0][0] in CHAIN), ((), ()))
        more = f"; {names[0]} fails: {'; '.join(why[:MOST_REASONS])}" if names else ""
        if self.pipelines:
            return (
                f"Not fair between methods: {held.setup} holds ({held.meaning}), which tells whole "
                f"pipelines apart and not pruning methods{more}."
            )
        return f"Not fair between methods: {held.setup} at best ({held.meaning}){more}."

    def _nothing(self) -> str:
        first = self.checks[0]
        if self.possible is None:
            return f"Not one comparison: {first.reasons[0]}."
        line = f"Not known to be one comparison: {'; '.join(first.reasons[:MOST_REASONS])}."
        if self.possible == CHAIN[-1]:
            return line
        failed = CHAIN[CHAIN.index(self.possible) + 1]
        check = next(check for check in self.checks if check.setup == failed)
        return (
            f"{line} Were that the same, it would be {self.possible} at best: {failed} fails: "
            f"{check.reasons[0]}."
        )

    def as_dict(self) -> Json:
        """Return the fields for JSON."""
        return {
            "strictest": self.strictest,
            "fair": self.fair,
            "one_network": self.one_network,
            "recommended": RECOMMENDED,
            "setups": {
                check.setup: {
                    "holds": check.holds,
                    "applies": check.applies,
                    "meaning": check.meaning,
                    "reasons": list(check.reasons),
                }
                for check in self.checks
            },
            "beside": list(self.beside),
            "advice": list(self.advice),
        }


def fairness(runs: Iterable[Run] | Sequence[Group]) -> Fairness:
    """Find the strictest comparison setup that two or more settings satisfy.

    "Unknown" is not "same". Source: Wang et al. (2023), Table 2; see docs/fairness.md.

    Args:
        runs: Runs of two settings or more, or groups of them. Of runs, those that did not finish
            are left out.

    Raises:
        RecordError: There is one setting or none: there is nothing to compare.
    """
    held = list(runs)
    groups = [item for item in held if isinstance(item, Group)]
    if len(groups) != len(held):
        made = group([item for item in held if isinstance(item, Run)])
        groups = [item for item in made if item.finished] or made
    if len(groups) < 2:
        raise RecordError(
            "fairness compares two settings or more: these runs differ in nothing but their seed"
        )
    names = dict.fromkeys(name for setup in (*SETUPS, *CROSSING) for name in setup.facts)
    against = {name: disagreements(name, groups) for name in names}
    if against["stage_epochs"]:  # told once: schedules of other lengths are others
        against["stage_schedule"] = []
    chain = [_check(setup, against) for setup in SETUPS]
    whole = not any(against[name] for name in (*SETUPS[0].facts, "settings"))
    if whole and one_overall_schedule(groups):
        chain = [_under_one_schedule(check) for check in chain]
    pipelines = chain[-1].meaning == ONE_SCHEDULE
    best = max((k for k, check in enumerate(chain) if check.holds), default=None)
    bar = None if pipelines else _bar(groups, best)
    crossing = [_check(setup, against, bar) for setup in CROSSING]
    strictest = None if best is None else chain[best].setup
    held_crossing = [check.setup for check in crossing if check.holds]
    if held_crossing and (best is None or best < CHAIN.index("S3.1")):
        strictest, pipelines = held_crossing[-1], True
    several = several_methods(groups) and pipelines and not fair_among_methods(groups)
    found = Fairness(
        strictest,
        (*chain, *crossing),
        one_network=chain[CHAIN.index("S2")].holds and _one_network(groups),
        pipelines=pipelines,
        several=several,
        possible=_possible(against),
        beside=_beside(groups),
    )
    return found if found.fair else replace(found, advice=advise(groups))


def _check(
    setup: Setup, against: Mapping[str, Sequence[Disagreement]], bar: str | None = None
) -> Check:
    reasons = [why.words for name in setup.facts for why in against[name]]
    if bar is not None:
        reasons = [bar]
    return Check(setup.name, setup.meaning, not reasons, bar is None, tuple(reasons))


def _under_one_schedule(check: Check) -> Check:
    """Return what becomes of an S setup where pipelines follow one overall LR schedule."""
    if check.setup == STRICTEST:
        return Check(check.setup, ONE_SCHEDULE, True, True, ())
    if check.holds:
        return check
    reason = f"the pipelines follow one overall LR schedule, so {STRICTEST} applies"
    return replace(check, applies=False, reasons=(reason,))


def _bar(groups: Sequence[Group], best: int | None) -> str | None:
    """Say why SX-A and SX-B are not the setups to ask for; None where they are."""
    if best is not None and best >= CHAIN.index("S3.1"):
        return "base models and retraining epochs are the same, so the S setups apply"
    if several_methods(groups) and not trades_epochs(groups):
        return "every stage of the pipelines takes as many epochs, so the S setups apply"
    return None


def _one_network(groups: Sequence[Group]) -> bool:
    alike = {item.pruned_alike for item in groups}
    ground = share(groups) if len(alike) == 1 and None not in alike else None
    return ground is not None and ground.known is not Known.UNKNOWN and not ground.partial


def _possible(against: Mapping[str, Sequence[Disagreement]]) -> str | None:
    """Return the strictest of the S setups that nothing known rules out."""
    found = None
    for setup in SETUPS:
        if any(why.known for name in setup.facts for why in against[name]):
            break
        found = setup.name
    return found


def _beside(groups: Sequence[Group]) -> tuple[str, ...]:
    """Say where granularities differ, which is no part of any setup."""
    held = [item.first.pruning for item in groups]
    found = list(dict.fromkeys(p.structure for p in held if p is not None and p.structure))
    if len(found) < 2:
        return ()
    return (
        f"Granularities differ ({listed(found)}), which no setup asks about: as many weights "
        "pruned in a coarser granularity usually cost more accuracy.",
    )
