"""Which name of a log is taken for each field of a Run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainscope.errors import RecordError
from trainscope.records.imports.log import ENOUGH, IN_WORDS, listed, no_column
from trainscope.records.imports.names import (
    ACCURACY,
    LOSS,
    LR,
    SECONDS,
    TEST,
    TRAIN,
    Meaning,
    meaning,
    split_in,
)


def choose(
    counts: Mapping[str, int], asked: Mapping[str, str], path: str, seen: Iterable[str]
) -> dict[str, str]:
    """Return the name that is taken for each field of a Run.

    Args:
        counts: In how many epochs each name has a number.
        asked: Names that the person gave, by field.
        path: Of the log, for messages.
        seen: Every name in the log.

    Raises:
        RecordError: A name that the person gave is not there, or two names are equally good.
    """
    found = {}
    meant = {name: m for name in counts if (m := meaning(name)) is not None}
    for part in IN_WORDS:
        if part == "epoch":
            continue
        if part in asked:
            own = [name for name in counts if name == asked[part]]
            own = own or [name for name in counts if is_called(name, asked[part])]
            if not own:
                if any(is_called(name, asked[part]) for name in seen):
                    raise RecordError(f"{path} has no number in its column '{asked[part]}'")
                raise no_column(path, asked[part], seen)
            found[part] = max(own, key=lambda name: (not _trained(name), counts[name]))
            continue
        name = _best(part, meant, counts, path)
        if name is not None:
            found[part] = name
    return found


def _trained(name: str) -> bool:
    return split_in(name) == TRAIN


def is_called(name: str, given: str) -> bool:
    """Tell whether a person's name for a column is this one, with the data before it or without."""
    return name == given or name.partition("/")[2] == given


def _best(
    part: str, meant: Mapping[str, Meaning], counts: Mapping[str, int], path: str
) -> str | None:
    wanted = {name: m for name, m in meant.items() if fits(part, m)}
    if part == "test_accuracy":  # beside val_accuracy, accuracy alone is of training
        wanted = {name: m for name, m in wanted.items() if m.split} or wanted
    if not wanted:
        return None
    most = max(counts[name] for name in wanted)
    wanted = {name: m for name, m in wanted.items() if counts[name] >= ENOUGH * most}

    def rank(name: str) -> tuple[bool, bool, int, bool, bool]:
        m = wanted[name]
        return m.ema, m.per_step, m.strange, not m.split, m.split != TEST

    best = min(map(rank, wanted))
    first, *others = [name for name in wanted if rank(name) == best]
    if others and part == "test_accuracy":
        raise RecordError(
            f"{path} has more than one name that may be of the test accuracy, "
            f"{listed([first, *others])}: say which with --column test_accuracy=NAME"
        )
    return first


def fits(part: str, m: Meaning) -> bool:
    """Tell whether a name may be of a field, by what it means."""
    if part in ("lr", "seconds"):
        return m.field == {"lr": LR, "seconds": SECONDS}[part]
    if part == "train_loss":
        return m.field == LOSS and m.split in (TRAIN, "")
    if part == "test_loss":
        return m.field == LOSS and m.split not in (TRAIN, "")
    return part == "test_accuracy" and m.field == ACCURACY and m.split != TRAIN
