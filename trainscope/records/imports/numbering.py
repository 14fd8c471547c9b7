"""Which of a log's epochs are those of the training, and how they are counted from 1."""

from __future__ import annotations

import math
from itertools import pairwise

from trainscope.errors import RecordError
from trainscope.records.imports.given import Given
from trainscope.records.imports.log import Log
from trainscope.records.run import Kind

EVERY = "Tests stand every {gap} epochs, the first one at {first}: the log counts epochs from 0."
FEWEST_TESTS, LEAST_GAP = 3, 3
"""Tests that make a habit, and epochs between them: epochs 1, 3, 5 may be counted from 1."""
FROM_ZERO = "The log counts epochs from 0; here they count from 1."
UNTRAINED = "The test at epoch 0 has no training beside it: it is of the network before any."
EITHER = (
    "Training stands behind the last test and none before the first: each test was taken to be of "
    "the training before it; where it is of the one behind it, name the epochs in the log."
)
UNTRAINED_FIRST = (
    "The first test has no training before it, as all others have: it is of the network before any."
)
TESTED_AFTER = "The test after the last epoch that was trained is no epoch, and is left out."
SHIFTED = (
    "The log counts its tests by the epochs that are done, and its training from {first} on: each "
    "test was taken to be of the epoch that had been trained before it."
)
TESTS_FIRST = (
    "Each epoch begins with its test, and one stands behind the last: each test was taken to be of "
    "the epoch before, and the first one to be of the network before any training."
)
JUMP = 1.5
"""A learning rate that rises by this factor, after it was constant or fell, begins a training."""


def number_epochs(log: Log, given: Given, path: str) -> None:
    """Count the epochs of a log from 1, the first epoch of the training.

    Raises:
        RecordError: What the person said of the first epoch does not fit the log.
    """
    _take_tests_back(log)
    _leave_tests_out(log)
    if given.first_epoch is None and not given.untrained_first:
        _take_start(log)
    if not log.rows:
        return
    first = given.first_epoch
    epochs = [int(row["epoch"]) for row in log.rows]
    if first is None:
        first = _first(log, epochs, given)
    elif not any(epoch >= first for epoch in epochs):
        raise RecordError(
            f"{path} ends with epoch {epochs[-1]}: --first-epoch {first} is beyond it"
        )
    log.rows = [row for row in log.rows if row["epoch"] >= first]
    if given.untrained_first:
        start, *log.rows = log.rows
        if not log.rows or start["epoch"] != first or (given.first_epoch is None and first != 0):
            raise RecordError(f"{path} has no epoch 0 before others: leave --untrained-first out")
        log.start_accuracy = start.get("test_accuracy")
        first += 1
    elif first == 0:
        log.notes.append(FROM_ZERO)
    elif given.first_epoch is None and (gap := _every(log)):
        log.notes.append(EVERY.format(gap=gap, first=gap - 1))
        first -= 1
    for row in log.rows:
        row["epoch"] -= first - 1


def _every(log: Log) -> int | None:
    """Return how many epochs are between tests that stand at the end of each so many, from 0."""
    epochs = [int(row["epoch"]) for row in log.rows]
    gaps = {after - before for before, after in pairwise(epochs)}
    if len(epochs) < FEWEST_TESTS or len(gaps) != 1:
        return None
    gap = gaps.pop()
    return gap if gap >= LEAST_GAP and epochs[0] == gap - 1 else None


def _take_start(log: Log) -> None:
    """Take a first test that has no training out, where every other epoch has some.

    That is one at epoch 0, or any where epochs are counted by their tests.
    """
    counted = not log.taken.get("epoch")
    if len(log.rows) < 3 or log.start_accuracy is not None:
        return
    if log.rows[0]["epoch"] != 0 and not counted:
        return
    first, *others = log.rows
    kinds = [part for part in ("train_loss", "lr") if all(part in row for row in others)]
    if not kinds or any(part in first for part in ("train_loss", "lr")):
        return
    if counted and "test_accuracy" not in others[-1]:
        log.notes.append(EITHER)
        return
    log.start_accuracy = log.rows.pop(0).get("test_accuracy")
    log.notes.append(UNTRAINED_FIRST if counted else UNTRAINED)
    for row in log.rows if counted else ():
        row["epoch"] -= 1


def _take_tests_back(log: Log) -> None:
    """Take tests that are numbered by the epochs done to those epochs, counted from the first.

    Then the first epoch of training has no test, and one stands alone behind the last, at the end
    of as many epochs as there are between any two tests.
    """
    if log.diverged_at is not None or len(log.rows) < 2:
        return
    trained = [int(row["epoch"]) for row in log.rows if "train_loss" in row]
    tested = [int(row["epoch"]) for row in log.rows if "test_accuracy" in row]
    if len(trained) < 2 or not tested or trained != list(range(trained[0], trained[-1] + 1)):
        return
    before_any = log.tests_first and tested == list(range(trained[0], trained[-1] + 2))
    if before_any:
        log.start_accuracy = log.rows[0].pop("test_accuracy")
        log.rows[0].pop("test_loss", None)
        tested = tested[1:]
    gaps = {after - before for before, after in pairwise([trained[0], *tested])}
    if tested[-1] != trained[-1] + 1 or len(gaps) != 1 or min(gaps) < 1:
        return
    rows = {int(row["epoch"]): row for row in log.rows}
    rates = () if "lr" in rows[trained[0]] else ("lr",)  # told at the test
    for epoch in tested:
        for part in ("test_accuracy", "test_loss", *rates):
            if part in rows[epoch]:
                rows[epoch - 1][part] = rows[epoch].pop(part)
    log.rows = [row for row in log.rows if row["epoch"] <= trained[-1]]
    log.notes.append(TESTS_FIRST if before_any else SHIFTED.format(first=trained[0]))


def _leave_tests_out(log: Log) -> None:
    """Leave out a test after training, which Lightning and others count as one more epoch."""
    if log.diverged_at is not None:  # the last epochs have no loss
        return
    for part in ("train_loss", "lr"):
        trained = [part in row for row in log.rows]
        if len(trained) > 2 and all(trained[:-1]) and not trained[-1]:
            log.rows.pop()
            log.notes.append(TESTED_AFTER)
            return


def _first(log: Log, epochs: list[int], given: Given) -> int:
    """Return the log's number of the first epoch, where nobody said it."""
    jumps = _jumps(log)
    if epochs[0] <= 1 or len(epochs) < 2 or epochs[0] <= epochs[1] - epochs[0]:
        if jumps:
            before, after = (f"{log.rows[k]['lr']:g}" for k in (jumps[0] - 1, jumps[0]))
            log.notes.append(
                f"The LR rises from {before} to {after} in epoch {epochs[jumps[0]]} of the log: if "
                f"the training begins there, say --first-epoch {epochs[jumps[0]]}."
            )
        return min(epochs[0], 1)
    if given.kind is Kind.TRAIN:
        log.notes.append(
            f"The log begins with epoch {epochs[0]}; if that is the first epoch of this training, "
            f"say --first-epoch {epochs[0]}."
        )
        return 1
    first = epochs[jumps[0]] if len(jumps) == 1 else epochs[0]
    why = "where its LR rises" if len(jumps) == 1 else "its first one"
    log.notes.append(
        f"The log's epochs are counted on from an earlier training: its epoch {first}, {why}, was "
        "taken for the first one and counts as 1; say --first-epoch N if another one is, or "
        "--first-epoch 1 if the log lacks its beginning."
    )
    return first


def _jumps(log: Log) -> list[int]:
    """Return the rows in which the learning rate rises at once, after it was constant or fell."""
    rates = [row.get("lr", math.nan) for row in log.rows]
    return [
        k
        for k in range(2, len(rates))
        if 0 < rates[k - 1] <= rates[k - 2]
        and rates[k] > JUMP * rates[k - 1]
        and max(rates[k + 1 : k + 2], default=0.0) <= rates[k]
    ]
