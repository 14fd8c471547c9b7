"""What one more run, or one more fact, would make a comparison fair."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.commands import retrain_line
from trainscope.comparison.facts import FACTS, missing_settings, schedule_of
from trainscope.comparison.grounds import Known, share
from trainscope.comparison.groups import Group
from trainscope.comparison.setups import RECOMMENDED, SETUPS
from trainscope.records import Run

MOST = 3
"""So many pieces of advice are given."""
MOST_COMMANDS = 6
"""So many commands are given for base models that some settings lack."""


def advise(groups: Sequence[Group], strictest: str | None) -> tuple[str, ...]:
    """Return what to do to reach S3.2, the loosest setup that the paper recommends.

    Args:
        groups: Two or more.
        strictest: The strictest setup that they satisfy.
    """
    names = [setup.name for setup in SETUPS]
    if strictest is not None and strictest not in names:
        return ()
    if strictest is not None and names.index(strictest) >= names.index(RECOMMENDED):
        return ()
    best = max(groups, key=lambda item: item.mean if item.mean is not None else -1.0)
    others = [item for item in groups if item is not best]
    facts = SETUPS[names.index(RECOMMENDED)].facts
    lines: dict[str, None] = {}
    for name in facts:
        unknown = [item.label for item in groups if _unknown(name, item.first)]
        if unknown:
            who = f"{unknown[0]} and {len(unknown) - 1} more" if unknown[1:] else unknown[0]
            which = f" ({missing_words(groups)})" if name == "settings" else ""
            lines[f"State the {FACTS[name].name} of {who}{which}: unknown is not the same."] = None
    if lines:
        return tuple(lines)[:MOST]
    for name in ("data", "architecture"):
        if FACTS[name].read(best.first) not in {FACTS[name].read(o.first) for o in others}:
            return (f"Compare within one of the {FACTS[name].name} at a time.",)
    lacking = _lacking(groups)
    alike = [other for other in others if _one_network(other, best)]
    differ = [
        word
        for fact, word in (("schedule", "LR schedule"), ("settings", "optimizer settings"))
        if {FACTS[fact].read(o.first) for o in alike} - {FACTS[fact].read(best.first)}
    ]
    if differ:
        lines[
            "To compare pruning methods rather than retraining, give every method one and the same "
            f"{' and '.join(differ)}, such as {best.label}."
        ] = None
    for other in others:
        if other not in alike:
            lines[_rerun(other, best)] = None
    return (*lacking, *tuple(lines)[: MOST if not lacking else 1])


def _one_network(other: Group, best: Group) -> bool:
    """Return whether two settings are known to retrain one pruned network."""
    if other.pruned_alike is None or other.pruned_alike != best.pruned_alike:
        return False
    ground = share([other, best])
    return ground is not None and ground.known is not Known.UNKNOWN


def missing_words(groups: Sequence[Group]) -> str:
    """Return "momentum and batch_size": the keys of the settings that S3.2 needs and some lack."""
    names = dict.fromkeys(
        name for item in groups for run in item.runs for name in missing_settings(run)
    )
    words = list(names)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _lacking(groups: Sequence[Group]) -> list[str]:
    """Say which runs would give every setting the same base models, where they share some."""
    sets = [{run.base for run in item.runs} for item in groups]
    common, union = set.intersection(*sets), set.union(*sets)
    if not common or common == union:
        return []
    seeds = {run.base: run.seed for item in groups for run in item.runs}
    lines = []
    for item, held in zip(groups, sets, strict=True):
        schedule = schedule_of(item.first)
        for base in sorted(union - held):
            if schedule is not None:
                line = retrain_line(
                    item.first, schedule, item.first, base=base, seeds=[seeds[base]]
                )[0]
                lines.append(f"Run: {line}")
    return [
        "Give every setting the same base models: they share "
        f"{len(common)} of {len(union)}, and a mean over others is a mean over other networks.",
        *lines[:MOST_COMMANDS],
    ]


def _unknown(name: str, run: Run) -> bool:
    return FACTS[name].read(run) is None


def _rerun(other: Group, best: Group) -> str:
    """Say how to run one setting's method under the best one's retraining."""
    schedule = schedule_of(best.first)
    if schedule is None:
        return f"Run {other.label} again with the retraining of {best.label}."
    base = best.first.base
    return f"Run: {retrain_line(other.first, schedule, best.first, base=base, seeds=[0])[0]}"
