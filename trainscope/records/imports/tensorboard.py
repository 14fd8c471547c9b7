"""TensorBoard: one event file, or a folder of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath

from trainscope.errors import RecordError
from trainscope.records.imports.choice import choose
from trainscope.records.imports.event_file import scalars
from trainscope.records.imports.log import COUNTED, Log, choose_run, no_accuracy, no_column, number
from trainscope.records.imports.names import EPOCH, is_test_accuracy, meaning, split_of

Pairs = list[tuple[int, float]]
Series = dict[str, Pairs]
MOST_FILES = 2_000
AGAIN = (
    "The training was begun again: from step {} on the values are those of the later event file, "
    "and what the earlier one had from there on is left out."
)


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read the scalars of event files; each value of the accuracy ends an epoch.

    The training loss and the learning rate of an epoch are the means of their values within it;
    other scalars count with their last value up to its end. A scalar named `epoch` (Lightning's,
    from 0) or `train/epoch` (Hugging Face's, epochs done) says the epoch; otherwise the steps of
    the accuracy say it if they ascend by one; otherwise epochs are counted.

    Folders below are runs of their own, but for those that hold a part of the run above:
    `add_scalars` makes one a curve, Keras one for training and one for validation.

    Args:
        path: The file, or the folder that holds some.
        asked: Tags that the person named, by field.
        run: The folder below `path` that holds the run to read.

    Raises:
        RecordError: There is no event file, no accuracy in it, or more than one run.
    """
    notes: list[str] = []
    series = _series(path, asked, run, notes)
    counts = {tag: len(pairs) for tag, pairs in series.items() if "hparam/" not in tag}
    taken = choose(counts, asked, str(path), series)
    if "test_accuracy" not in taken:
        raise no_accuracy(str(path), series)
    most = counts[taken["test_accuracy"]]  # a scalar of each step is no better than one an epoch
    taken = choose({tag: min(n, most) for tag, n in counts.items()}, asked, str(path), series)
    ends = [(step, v) for step, v in series[taken["test_accuracy"]] if number(v) is not None]
    log = Log("tensorboard", [], taken, notes)
    tag = asked.get("epoch") or next(
        (tag for tag in series if (m := meaning(tag)) and m.field == EPOCH), None
    )
    if tag is not None and tag not in series:
        raise no_column(str(path), tag, series)
    epochs = _epochs(ends, _done(series, tag), log)
    log.taken["epoch"] = (tag or "step") if COUNTED not in log.notes else ""
    before = -1
    for epoch, (step, accuracy) in zip(epochs, ends, strict=True):
        row = {"epoch": float(epoch), "test_accuracy": accuracy}
        for part, name in taken.items():
            if part in ("train_loss", "lr"):
                value = _mean(series[name], before, step)
            else:
                value = _last(series[name], step) if part in ("test_loss", "seconds") else None
            row |= {} if value is None else {part: value}
        log.rows.append(row)
        before = step
    if not log.taken["epoch"]:
        log.take_step_zero([float(step) for step, _ in ends[:2]])
    return log


def is_event_file(path: Path) -> bool:
    """Tell by the name."""
    return ".tfevents." in path.name


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder, at any depth, in the order in which they were begun."""
    found = sorted(file for file in folder.rglob("*.tfevents.*") if file.is_file())
    if len(found) > MOST_FILES:
        raise RecordError(
            f"{folder} holds more than {MOST_FILES} event files: name the folder of one run"
        )
    return found


def _series(path: Path, asked: Mapping[str, str], run: str | None, notes: list[str]) -> Series:
    """Return the scalars of the one run that is to be read."""
    if not path.is_dir():
        if run is not None:
            choose_run(str(path), [], run)
        return _merged([scalars(path)], notes)
    files = event_files(path)
    if not files:
        raise RecordError(
            f"{path} holds no event file of TensorBoard's, nor another log that is known by its "
            "name: name the file itself"
        )
    folders: dict[str, list[Series]] = {}
    for file in files:
        folders.setdefault(file.parent.relative_to(path).as_posix(), []).append(scalars(file))
    runs: dict[str, list[Series]] = {}
    for name, parts in folders.items():
        for part in parts:
            home, named = _belongs(name, part, folders)
            runs.setdefault(home, []).append(named)
    good = [
        name
        for name, parts in runs.items()
        if any(is_test_accuracy(tag, asked) for part in parts for tag in part)
    ]
    names = good or list(runs)
    if run is None and len(names) == 1:
        return _merged(runs[names[0]], notes)
    return _merged(runs[choose_run(str(path), names, run)], notes)


def _belongs(name: str, part: Series, folders: Mapping[str, object]) -> tuple[str, Series]:
    """Return the run that a folder's scalars belong to, and the scalars by their full names."""
    folder = PurePosixPath(name)
    if name == ".":
        return name, part
    parent = folder.parent.as_posix()
    if split_of(folder.name):
        return parent, {f"{folder.name}/{tag}": pairs for tag, pairs in part.items()}
    curves = {tag: folder.name.removeprefix(f"{tag.replace('/', '_')}_") for tag in part}
    if part and parent in folders and all(curve != folder.name for curve in curves.values()):
        return parent, {f"{tag}/{curves[tag]}": pairs for tag, pairs in part.items()}
    return name, part


def _merged(parts: list[Series], notes: list[str]) -> Series:
    """Return the scalars of files that were written one after the other.

    A step that goes back tells that the training was begun again there.
    """
    series: Series = {}
    again: list[int] = []
    for part in parts:
        for tag, pairs in part.items():
            known = series.setdefault(tag, [])
            if len(pairs) > 1 and len({step for step, _ in pairs}) == 1:  # nobody gave one
                pairs = [(place, value) for place, (_, value) in enumerate(pairs)]
            for step, value in pairs:
                if known and step <= known[-1][0]:
                    if step < known[-1][0]:
                        again.append(step)
                    while known and known[-1][0] >= step:
                        known.pop()
                known.append((step, value))
    if again:
        notes.append(AGAIN.format(min(again)))
    return series


def _done(series: Series, tag: str | None) -> Pairs:
    """Return the epochs at each step, as far as a scalar says them."""
    pairs = series.get(tag or "", [])
    if tag is not None and "/" in tag:  # Hugging Face's: epochs done, with fractions
        return [(step, math.ceil(value - 1e-6)) for step, value in pairs if math.isfinite(value)]
    return [(step, value) for step, value in pairs if math.isfinite(value)]


def _epochs(ends: Pairs, done: Pairs, log: Log) -> list[int]:
    steps = [step for step, _ in ends]
    said = [_last(done, step) for step in steps]
    numbers = [int(value) for value in said if value is not None]
    if len(numbers) == len(steps) and all(before < after for before, after in pairwise(numbers)):
        return numbers
    if all(after == before + 1 for before, after in pairwise(steps)):
        return steps if len(steps) > 1 else [1]
    log.notes.append(COUNTED)
    return list(range(1, len(steps) + 1))


def _mean(pairs: Pairs, after: int, until: int) -> float | None:
    """Return the mean of the values within an epoch, or the last one before it."""
    within = [value for step, value in pairs if after < step <= until and math.isfinite(value)]
    if not within:
        return _last(pairs, until)
    mean = math.fsum(within) / len(within)
    return within[-1] if abs(mean - within[-1]) <= 1e-9 * abs(mean) else mean


def _last(pairs: Pairs, step: int) -> float | None:
    value = next((value for at, value in reversed(pairs) if at <= step), None)
    return None if value is None else number(value)
