"""The training settings that S3.2 asks to be the same: the optimizer's, and all that a run states.

Wang et al. (2023), Sec. 3.2, take momentum, weight decay and the like to be kept the same where the
LR schedule is. Here nothing is taken so: a setting that some run states counts, whatever its name,
and a run that does not state it is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence

from trainscope.comparison.facts import schedule_of
from trainscope.comparison.reasons import listed
from trainscope.records import Run
from trainscope.training.shapes import in_words

NOT_SETTINGS = ("seed", "accuracy", "spread", "reported")
"""Names in a Run's settings that do not tell settings apart."""
NEEDED = ("optimizer", "momentum", "weight_decay", "batch_size")
"""What must be stated, unless a `recipe` is named that stands for it."""
RECIPE = "recipe"
WORDED = "lr_schedule"
"""The LR schedule in the words of a source that does not give all of it."""
OWN = "trainscope"
"""The source of a Run that was trained here."""
LARGEST = 2**53
"""Whole numbers above this are not kept by a float."""
WITHOUT = {
    **dict.fromkeys(("adam", "adamw"), ("momentum",)),
    "sgd": ("betas", "eps"),
}
"""Settings that an optimizer does not have; one that a log carries along is not read."""
LORA = ("lora_rank", "lora_alpha", "lora_targets")
"""Of low-rank adapters. A Run of our own that names none of them trained the weights."""
USUAL = {"betas": [0.9, 0.999], "eps": 1e-8}
"""What a Run of our own under AdamW was trained with where its version did not write it."""


def stated(run: Run) -> dict[str, Hashable]:
    """Return the settings by name, numbers and words in one form: "0.90" is 0.9, "SGD" is "sgd"."""
    found = {
        name: _plain(value) for name, value in run.settings.items() if name not in NOT_SETTINGS
    }
    if run.source == OWN and found.get("optimizer") in ("adam", "adamw"):
        found = {**{name: _plain(value) for name, value in USUAL.items()}, **found}
    for name in _without(found):
        found.pop(name, None)
    return found


def _without(found: Mapping[str, Hashable]) -> tuple[str, ...]:
    return WITHOUT.get(str(found.get("optimizer")), ())


def counted(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the names that must agree: those that any of the runs states."""
    return tuple(dict.fromkeys(name for run in runs for name in stated(run)))


def missing_settings(run: Run) -> tuple[str, ...]:
    """Return the names of the optimizer settings that S3.2 needs and nobody stated."""
    found = stated(run)
    if found.get(RECIPE) is not None:
        return ()
    free = _without(found)
    return tuple(name for name in NEEDED if found.get(name) is None and name not in free)


def lacking(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    """Return what a run does not state: of what S3.2 needs, and of what others state.

    Args:
        run: A run.
        names: What any of the runs states.
    """
    found = stated(run)
    free = (*_without(found), *(LORA if run.source == OWN else ()))
    others = [name for name in names if name not in found and name not in free]
    needed = missing_settings(run)
    if needed:  # a recipe would stand for these
        others = [name for name in others if name != RECIPE]
    return tuple(dict.fromkeys((*needed, *others)))


def differing(runs: Sequence[Run]) -> list[str]:
    """Return "weight decay 0.0005 and weight decay 0.0001" for every setting known to differ."""
    found = []
    for name in counted(runs):
        values = dict.fromkeys(
            held.get(name)
            for run in runs
            if name in (held := stated(run)) or (name == LORA[0] and run.source == OWN)
        )
        if len(values) > 1:
            found.append(listed([f"{name.replace('_', ' ')} {_written(v)}" for v in values]))
    return found


def schedule_text(run: Run) -> str:
    """Return the LR schedule, in a source's words where it is not known in full, or "unknown"."""
    found = schedule_of(run)
    return str(run.settings.get(WORDED) or "unknown") if found is None else in_words(found)


def _written(value: Hashable) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _plain(value: object) -> Hashable:
    """Return a value that can be compared, as a log, a card and a Run may each write it."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "false"):
            return text == "true"
        try:
            return float(text)
        except ValueError:
            return text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) > LARGEST:
        return hex(value)
    if isinstance(value, int | float):
        return float(value)
    return json.dumps(value, sort_keys=True, default=str)
