"""Which comparison setup a set of runs satisfies, and what keeps it from a stricter one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from trainscope.comparison.advice import advise
from trainscope.comparison.agreement import disagreements
from trainscope.comparison.facts import SCRATCH, last_epoch, method_of, pretraining_epochs
from trainscope.comparison.grounds import Known, share
from trainscope.comparison.pipelines import direct, overall_schedule, stage_epochs
from trainscope.comparison.reasons import Disagreement, listed
from trainscope.comparison.settings import Setting, group
from trainscope.comparison.setups import (
    CHAIN,
    CROSSING,
    ONE_SCHEDULE,
    RECOMMENDED,
    SETUPS,
    STRICTEST,
    Check,
    Fairness,
    Setup,
)
from trainscope.errors import RecordError
from trainscope.records import Run


def fairness(runs: Iterable[Run] | Sequence[Setting]) -> Fairness:
    """Find the strictest comparison setup that two or more settings satisfy.

    "Unknown" is not "same". Source: Wang et al. (2023), Table 2; see docs/fairness.md.

    Args:
        runs: Runs of two settings or more, or groups of them. Of runs, those that did not finish
            are left out.

    Raises:
        RecordError: There is one setting or none: there is nothing to compare.
    """
    held = list(runs)
    groups = [item for item in held if isinstance(item, Setting)]
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


def _bar(groups: Sequence[Setting], best: int | None) -> str | None:
    """Say why SX-A and SX-B are not the setups to ask for; None where they are."""
    if best is not None and best >= CHAIN.index("S3.1"):
        return "base models and retraining epochs are the same, so the S setups apply"
    if several_methods(groups) and not trades_epochs(groups):
        return "every stage of the pipelines takes as many epochs, so the S setups apply"
    return None


def _one_network(groups: Sequence[Setting]) -> bool:
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


def _beside(groups: Sequence[Setting]) -> tuple[str, ...]:
    """Say where granularities differ, which is no part of any setup."""
    held = [item.first.pruning for item in groups]
    found = list(dict.fromkeys(p.structure for p in held if p is not None and p.structure))
    if len(found) < 2:
        return ()
    return (
        f"Granularities differ ({listed(found)}), which no setup asks about: as many weights "
        "pruned in a coarser granularity usually cost more accuracy.",
    )


def several_methods(groups: Sequence[Setting]) -> bool:
    """Return whether pruning methods differ, or some is not known; scratch training has none."""
    methods = [method_of(item.first) for item in groups if item.first.kind not in SCRATCH]
    return len(set(methods)) > 1 or (len(methods) > 1 and None in methods)


def fair_among_methods(groups: Sequence[Setting]) -> bool:
    """Return whether the pruning methods meet S3.2 among themselves, scratch training aside."""
    pruned = [item for item in groups if item.first.kind not in SCRATCH]
    facts = next(setup.facts for setup in SETUPS if setup.name == RECOMMENDED)
    return not any(disagreements(name, pruned) for name in facts)


def trades_epochs(groups: Sequence[Setting]) -> bool:
    """Return whether some stage of the pipelines takes more epochs in one than in another."""
    runs = [run for item in groups for run in item.runs]
    spent = {
        (0 if direct(run) else pretraining_epochs(run), stage_epochs(run), last_epoch(run))
        for run in runs
    }
    return len(spent) > 1


def one_overall_schedule(groups: Sequence[Setting]) -> bool:
    """Return whether pipelines follow one LR schedule and differ in their pruning epoch alone.

    Training from scratch follows it from random weights. Wang et al. (2023), Table 4, first block.
    """
    pruned = [item for item in groups if not direct(item.first)]
    epochs = [pretraining_epochs(item.first) for item in pruned]
    if not pruned or several_methods(groups) or len(set(epochs)) < len(epochs):
        return False
    overall = {overall_schedule(run) for item in groups for run in item.runs}
    return len(overall) == 1 and None not in overall
