"""What one more run, or one more fact, would make a comparison fair."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.agreement import NAMES, disagreements, unstated
from trainscope.comparison.commands import retrain_line
from trainscope.comparison.facts import schedule_of
from trainscope.comparison.grounds import Known, share
from trainscope.comparison.optimizer_settings import counted, lacking
from trainscope.comparison.reasons import listed
from trainscope.comparison.settings import Setting
from trainscope.comparison.setups import RECOMMENDED, SETUPS

MOST = 3
"""So many pieces of advice are given."""
MOST_COMMANDS = 6
"""So many commands are given for base models that some settings lack."""


def advise(groups: Sequence[Setting]) -> tuple[str, ...]:
    """Return what to do to reach S3.2, the loosest setup that the paper recommends.

    Args:
        groups: Two or more, whose comparison is not fair.
    """
    best = max(groups, key=lambda item: item.quality)
    others = [item for item in groups if item is not best]
    lines = dict.fromkeys((*_one_at_a_time(groups), *_state(groups)))
    if lines:
        return tuple(lines)[:MOST]
    bases = _other_bases(groups)
    alike = [other for other in others if _one_network(other, best)]
    differ = [
        word
        for fact, word in (("schedule", "LR schedule"), ("settings", "optimizer settings"))
        if any(disagreements(fact, [best, other]) for other in alike)
    ]
    if differ:
        lines[
            "To compare pruning methods rather than retraining, give every method one and the same "
            f"{' and '.join(differ)}, such as {best.label}."
        ] = None
    for other in others:
        if other not in alike:
            lines[_rerun(other, best)] = None
    return (*bases, *tuple(lines)[: MOST if not bases else 1])


def _one_network(other: Setting, best: Setting) -> bool:
    """Return whether two settings are known to retrain one pruned network."""
    if other.pruned_alike is None or other.pruned_alike != best.pruned_alike:
        return False
    ground = share([other, best])
    return ground is not None and ground.known is not Known.UNKNOWN


def _one_at_a_time(groups: Sequence[Setting]) -> list[str]:
    """Say what to split by: what S1 asks for and is known to differ."""
    words = {
        "metric": "metric",
        "data": "data set",
        "architecture": "network",
        "compression": "compression",
    }
    apart = [
        word
        for name, word in words.items()
        if any(why.known for why in disagreements(name, groups))
    ]
    return [f"Compare one {listed(apart)} at a time."] if apart else []


def _state(groups: Sequence[Setting]) -> list[str]:
    """Say which facts to state, and of whom: what S3.2 asks for and somebody left out."""
    facts = next(setup.facts for setup in SETUPS if setup.name == RECOMMENDED)
    gaps: dict[tuple[str, ...], list[str]] = {}
    for name in facts:
        held = tuple(item.label for item in groups if unstated(name, item, groups))
        if held:
            gaps.setdefault(held, []).append(name)
    lines = []
    for labels, names in gaps.items():
        whose = f"{labels[0]} and {len(labels) - 1} more" if labels[1:] else labels[0]
        ordered = [name for name in names if name != "settings"]
        which = ""
        if "settings" in names:  # last, as what is in brackets is of them
            ordered.append("settings")
            which = f" ({listed(_missing(groups, labels))})"
        what = listed([NAMES[name] for name in ordered])
        lines.append(f"State the {what} of {whose}{which}: unknown is not the same.")
    return lines


def _missing(groups: Sequence[Setting], labels: Sequence[str]) -> list[str]:
    """Return the names of the settings that some of the groups named do not state."""
    names = counted([run for item in groups for run in item.runs])
    held = [run for item in groups if item.label in labels for run in item.runs]
    return list(dict.fromkeys(name for run in held for name in lacking(run, names)))


def _other_bases(groups: Sequence[Setting]) -> list[str]:
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


def _rerun(other: Setting, best: Setting) -> str:
    """Say how to run one setting's method under the best one's retraining."""
    schedule = schedule_of(best.first)
    if schedule is None:
        return f"Run {other.label} again with the retraining of {best.label}."
    base = best.first.base
    return f"Run: {retrain_line(other.first, schedule, best.first, base=base, seeds=[0])[0]}"
