"""What must agree for a comparison to be fair, and what keeps it from agreeing.

A fact that is not known is None, and "unknown" is not "same": Wang et al. (2023), Sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import cast

from trainscope.comparison.bases import base_models, base_of
from trainscope.comparison.facts import last_epoch, write_base
from trainscope.comparison.optimizer_settings import counted, differing, lacking, missing_settings
from trainscope.comparison.pipelines import (
    Stages,
    retraining_schedule,
    stage_epochs,
    stage_schedule,
)
from trainscope.comparison.reasons import MOST_VALUES, Disagreement, listed, numbers, who
from trainscope.comparison.settings import Setting
from trainscope.comparison.sizes import compressions, epochs, flops, stated_size
from trainscope.records import Metric, Run
from trainscope.records.text import count_of
from trainscope.training.schedule import LRSchedule, Stage, write_lr
from trainscope.training.shapes import FEW_STAGES, in_words

LONGEST_SCHEDULE = 60


def disagreements(name: str, groups: Sequence[Setting]) -> list[Disagreement]:
    """Return why a fact does not agree; nothing where all groups are known to agree.

    Args:
        name: Of `FACTS`, or "base", "compression", "settings", "total_epochs", "total_flops".
        groups: Two or more.
    """
    if name in SPECIAL:
        return SPECIAL[name](groups)
    return _plain(FACTS[name], groups)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that must be equal.

    Attributes:
        name: In the plural, as a sentence names it.
        read: From a Run to a value that can be hashed; None where it is not known.
        write: A value in words.
    """

    name: str
    read: Callable[[Run], Hashable | None]
    write: Callable[[Hashable], str] = str


def unstated(name: str, item: Setting, groups: Sequence[Setting]) -> bool:
    """Return whether a group does not state a fact; for settings, one that any group states."""
    if name == "settings":
        names = counted([run for held in groups for run in held.runs])
        return any(lacking(run, names) for run in item.runs)
    if name == "compression":
        return not stated_size(item)
    return any(FACTS[name].read(run) is None for run in item.runs)


def _plain(fact: Fact, groups: Sequence[Setting]) -> list[Disagreement]:
    values = [_value(fact, item) for item in groups]
    unknown = [item.label for item, value in zip(groups, values, strict=True) if value is None]
    singles = dict.fromkeys(one for value in values if value is not None for one in value)
    if len(singles) > 1:
        more = f", and unknown for {listed(unknown, MOST_VALUES)}" if unknown else ""
        return [Disagreement(f"{fact.name} {_written(fact, list(singles))}{more}", True)]
    if unknown:
        return [Disagreement(f"{fact.name} are unknown for {who(unknown, len(groups))}", False)]
    return []


def _written(fact: Fact, values: Sequence[Hashable]) -> str:
    words = list(dict.fromkeys(map(fact.write, values)))
    if all(isinstance(value, int) for value in values):
        return numbers([int(str(value)) for value in values], "{}")
    if len(words) == 1:
        return f"differ, though they are written alike ({words[0]})"
    return listed(words, MOST_VALUES)


def _value(fact: Fact, item: Setting) -> tuple[Hashable, ...] | None:
    """Return the values of all runs of a group, once each; None where any is unknown."""
    found = [fact.read(run) for run in item.runs]
    return None if None in found else tuple(dict.fromkeys(found))


def _settings(groups: Sequence[Setting]) -> list[Disagreement]:
    runs = [run for item in groups for run in item.runs]
    found = [Disagreement(f"training settings differ: {words}", True) for words in differing(runs)]
    names = counted(runs)
    missing: dict[tuple[str, ...], list[str]] = {}
    needed = False
    for item in groups:
        lacks = dict.fromkeys(name for run in item.runs for name in lacking(run, names))
        if lacks:
            missing.setdefault(tuple(lacks), []).append(item.label)
            needed = needed or any(missing_settings(run) for run in item.runs)
    if not missing:
        return found
    labels = [item.label for item in groups if any(item.label in who for who in missing.values())]
    words = listed(list(dict.fromkeys(name for lacks in missing for name in lacks)))
    if needed:
        told = f"optimizer settings are unknown for {who(labels, len(groups))}: {words} not stated"
    else:
        others = [item.label for item in groups if item.label not in labels] or ["others"]
        are = "is" if len({name for lacks in missing for name in lacks}) == 1 else "are"
        told = (
            f"{words} {are} stated for {listed(others, MOST_VALUES)} and unknown for "
            f"{listed(labels, MOST_VALUES)}"
        )
    return [*found, Disagreement(told, False)]


def _write_schedule(value: Hashable) -> str:
    stages, epochs = cast(Stages, value)
    if len(stages) > FEW_STAGES:
        held = LRSchedule(tuple(starmap(Stage, stages)), epochs, recorded=True)
        return f"{in_words(held)} over {count_of(epochs, 'epoch')}"
    text = ",".join(f"{start}:{write_lr(lr)}" for start, lr in stages) or count_of(epochs, "epoch")
    return text if len(text) <= LONGEST_SCHEDULE else text[: LONGEST_SCHEDULE - 3] + "..."


FACTS = {
    "metric": Fact("metrics", lambda run: run.metric, lambda value: cast(Metric, value).label),
    "data": Fact("data sets", lambda run: run.data),
    "architecture": Fact("networks", lambda run: run.architecture),
    "base": Fact("base models", base_of, lambda value: write_base(str(value))),
    "epochs": Fact("retraining epochs", last_epoch),
    "schedule": Fact("LR schedules", retraining_schedule, _write_schedule),
    "stage_epochs": Fact("epochs of the pruning stage", stage_epochs),
    "stage_schedule": Fact("LR schedules of the pruning stage", stage_schedule, _write_schedule),
}
NAMES = {
    **{name: fact.name for name, fact in FACTS.items()},
    "compression": "speedups or ratios",
    "settings": "optimizer settings",
}
"""The names, in the plural, of what S3.2 and looser setups ask for, and of the pruning stage."""
SPECIAL: dict[str, Callable[[Sequence[Setting]], list[Disagreement]]] = {
    "base": base_models,
    "compression": compressions,
    "settings": _settings,
    "total_epochs": epochs,
    "total_flops": flops,
}
