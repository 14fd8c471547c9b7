"""What one more run, or one more fact, would make a comparison fair."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from trainscope.records import Kind, Run
from trainscope.records.run import UNKNOWN
from trainscope.studies.facts import FACTS, schedule_of
from trainscope.studies.groups import Group
from trainscope.studies.setups import RECOMMENDED, SETUPS
from trainscope.training.schedule import LRSchedule

MOST = 3
"""So many pieces of advice are given."""


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
            lines[f"State the {FACTS[name].name} of {who}: unknown is not the same."] = None
    if lines:
        return tuple(lines)[:MOST]
    for name in ("data", "architecture"):
        if FACTS[name].read(best.first) not in {FACTS[name].read(o.first) for o in others}:
            return (f"Compare within one of the {FACTS[name].name} at a time.",)
    for other in others:
        lines[_rerun(other, best)] = None
    return tuple(lines)[:MOST]


def _unknown(name: str, run: Run) -> bool:
    return FACTS[name].read(run) is None


def _rerun(other: Group, best: Group) -> str:
    """Say how to run one setting's method under the best one's retraining."""
    schedule = schedule_of(best.first)
    run, given = other.first, best.first
    if schedule is None:
        return f"Run {other.label} again with the retraining of {best.label}."
    if (run.base, run.pruning) == (given.base, given.pruning):
        return (
            "To compare pruning methods rather than LR schedules, give every method one and the "
            f"same schedule, such as {best.label}."
        )
    return f"Run: {retrain_command(run, schedule, given, base=given.base)}"


SETTINGS = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "clip": None,
}
"""The usual optimizer settings, which a command need not name."""


def retrain_command(
    method: Run, schedule: LRSchedule, setup: Run, *, base: str | None = None, seed: int | None = 0
) -> str:
    """Return the command that retrains one run's method under another run's setup.

    Args:
        method: Its pruning is taken.
        schedule: The LR schedule to retrain with.
        setup: Its data and optimizer settings are taken.
        base: The base model's digest, to name the checkpoint by.
        seed: The seed.
    """
    name = "CHECKPOINT" if not base or base == UNKNOWN else f"CHECKPOINT-{base[:8]}"
    if method.kind in (Kind.SCRATCH_E, Kind.SCRATCH_B):
        budget = "epochs" if method.kind is Kind.SCRATCH_E else "flops"
        words = [f"trainscope scratch --like {name} --budget {budget}"]
    else:
        words = [f"trainscope retrain {name}", *_pruning_options(method)]
    words.append(f"--schedule {schedule} --epochs {schedule.total}")
    for option, usual in SETTINGS.items():
        value = setup.settings.get(option, usual)
        if value is not None and value != usual:
            words.append(f"--{option.replace('_', '-')} {value}")
    if setup.data:
        words.append(f"--data {setup.data}")
    if seed is not None:
        words.append(f"--seed {seed}")
    return " ".join(words)


def _pruning_options(run: Run) -> list[str]:
    pruning = run.pruning
    if pruning is None:
        return []
    action, words = pruning.action, []
    if action is not None and action.ratios:
        given = ",".join(f"{name}={share:g}" for name, share in action.ratios.items())
        words.append(f"--ratios '{given}'")
    elif pruning.ratio is not None:
        words.append(f"--ratio {pruning.ratio:g}")
    for option, value, usual in (
        ("criterion", pruning.criterion, "l1"),
        ("structure", pruning.structure, "filter"),
        ("scope", pruning.scope, "inner"),
    ):
        if value is not None and value != usual:
            words.append(f"--{option} {shlex.quote(value)}")
    if action is not None and action.global_ranking:
        words.append("--global")
    return words
