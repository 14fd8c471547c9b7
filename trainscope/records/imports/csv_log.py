"""Tables with named columns: a row an epoch, or several, or a row a step.

Lightning's metrics.csv, timm's summary.csv, ultralytics' results.csv, W&B's exports,
log_finetune.txt of the codes around pytorch-classification, and any other.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports import long_log
from trainscope.records.imports.collect import EpochCollector
from trainscope.records.imports.log import (
    COUNTED,
    Log,
    choose_run,
    is_lost,
    no_column,
    number,
    share,
)
from trainscope.records.imports.named import called
from trainscope.records.imports.names import (
    ACCURACY,
    EPOCH,
    LOSS,
    PHASES,
    STEP,
    TRAIN,
    ending_names,
    is_test_accuracy,
    meaning,
    split_of,
)
from trainscope.records.imports.survey import Survey
from trainscope.records.imports.table import open_table, refuse_twice
from trainscope.records.imports.table_runs import (
    RUNS,
    by_columns,
    by_rows,
    by_run,
    cell_of,
    run_of,
)

ROWS = "The table has no column of epochs: each row counts as one."
SORTED = "The rows of the table were put in the order of their epochs."
_EPOCH = re.compile(r"(?:ep(?:och)?\s*)?(\d+(?:\.\d*)?(?:e\d+)?)(?:\s*/\s*\d+)?", re.IGNORECASE)
RUNNING = "The log's seconds are those since its start; here they are those of each epoch."


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read a table.

    Rows of one epoch are merged. Lightning's CSVLogger writes the learning rate and the losses of
    an epoch in rows of their own; a row without an epoch belongs to the next row that has one, but
    for a test behind the first row with an epoch, which is of the row above it. Without a column of
    epochs, each row with an accuracy ends an epoch.

    Args:
        path: The file.
        asked: Columns that the person named, by field.
        run: The run to read, of a table of several.

    Raises:
        RecordError: It has no header, no rows, no accuracy, a column twice, or several runs of
            which none is named.
    """
    told = long_log.read_table(path, asked, run)
    if told is not None:
        return told
    names, rows = open_table(path, again=True)
    if names and all(map(_is_number, names)):
        raise RecordError(
            f"{path} has no header: put a line with the columns' names above its numbers, like "
            "epoch,lr,val_acc"
        )
    names = called(names, path, asked)
    layout = _layout(path, names, asked, run)
    collector = EpochCollector(str(path), asked)
    collector.see(layout.names.values())
    reader = _Reader(path, layout, collector)
    for line, row in _in_order(rows, layout):
        reader.take(line, row)
    if not reader.count or len([name for name in names if name]) < 2:
        raise RecordError(f"{path} is no CSV file with named columns and a row an epoch")
    if layout.epoch is not None and not collector.rows:
        raise RecordError(f"{path} has no epoch in its column '{names[layout.epoch]}'")
    log = collector.log(_source(names, layout, reader))
    used = {
        name.partition("/")[2] if layout.phase is not None else name for name in log.taken.values()
    }
    needed = [names[at] for at, name in layout.names.items() if name in used]
    refuse_twice(path, names, dict.fromkeys(needed))
    if layout.epoch is None:
        log.notes.append(ROWS if reader.ends == reader.count else COUNTED)
        log.take_step_zero([None if math.isinf(step) else step for step in reader.steps[:2]])
    else:
        refuse_twice(path, names, [names[layout.epoch]])
        log.taken["epoch"] = names[layout.epoch]
    if layout.unordered:
        log.notes.append(SORTED)
    if reader.fractional:
        log.take_start()
    _part_seconds(log)
    return log


@dataclass(frozen=True)
class _Layout:
    """Where the numbers of one run are.

    Attributes:
        names: The name of each column that is read.
        epoch: The column of the epochs, None where there is none.
        step: The column of the steps.
        phase: The column that says of which data a row is.
        runs: The columns that say of which run a row is.
        run: The run whose rows are read.
        hugging: Whether it is a history of Hugging Face's Trainer.
        wide: Whether the columns are named `run - metric`.
        unordered: Whether the rows are in another order than their epochs, each of which is one's.
    """

    names: Mapping[int, str]
    epoch: int | None = None
    step: int | None = None
    phase: int | None = None
    runs: tuple[int, ...] = ()
    run: str = ""
    hugging: bool = False
    wide: bool = False
    unordered: bool = False


@dataclass
class _Reader:
    """Hands rows to the collector, with the epoch that each belongs to.

    Attributes:
        path: Of the table, for messages.
        layout: Where what is.
        collector: Takes the numbers.
        count: Rows read.
        ends: Rows that ended an epoch, in a table without a column of epochs.
        sparse: Whether any cell is empty.
        fractional: Whether any epoch has a fraction.
        waiting: The numbers of rows without an epoch, which belong to the next one.
        useful: The columns that are read, and their names.
        counted: Those of accuracies, which may be counts like 400/1000.
        ending: The names whose values end an epoch, in a table without a column of epochs.
        steps: The steps at which epochs ended, in a table without a column of epochs.
        again: Whether the header stands right above.
        last: The epoch of the last row that has one.
        ahead: Whether rows of tests without an epoch stand before the row that has it.
    """

    path: Path
    layout: _Layout
    collector: EpochCollector
    count: int = 0
    ends: int = 0
    sparse: bool = False
    fractional: bool = False
    waiting: list[dict[str, float]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    useful: list[tuple[int, str]] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    again: bool = False
    last: int | None = None
    ahead: bool = False

    def __post_init__(self) -> None:
        """Leave out the columns that no Run holds."""
        named = self.layout.names.items()
        self.useful = [(at, name) for at, name in named if self.collector.wanted(name)]
        asked = self.collector.asked
        self.ending = ending_names((name for _, name in self.useful), asked)
        self.counted = {at for at, name in self.useful if is_test_accuracy(name, asked)}

    def take(self, line: int, row: Sequence[str]) -> None:
        """Take a row."""
        layout = self.layout
        if not row:  # the header again
            self.again = True
            return
        if layout.runs and run_of(row, layout.runs) != layout.run:
            return
        self.count += 1
        split = "" if layout.phase is None else split_of(cell_of(row, layout.phase))
        if not self.sparse:
            self.sparse = not all(row) or len(row) < len(layout.names)
        values: dict[str, float] = {}
        lost: list[str] = []
        for at, name in self.useful:
            value = number(row[at]) if at < len(row) else None
            counted = value is None and at in self.counted and at < len(row)
            if counted:
                value = share(row[at])
            full = f"{split}/{name}" if split else name
            if value is None and at < len(row) and row[at] and is_lost(row[at]):
                lost.append(full)
            if value is not None:
                values[full] = value
                if counted or row[at][-1] == "%":
                    self.collector.signed.add(full)
        if split and self.count < 100:
            self.collector.see(f"{split}/{name}" for name in layout.names.values())
        epoch = self._epoch(line, row, values)
        if self.again and epoch is not None and self.layout.epoch is not None:
            self.again = False
            if epoch <= max(self.collector.rows, default=-1):
                self.waiting = []
                self.collector.begin_again(epoch)
        if epoch is None and self.layout.epoch is not None and not self.ending.isdisjoint(values):
            if self.last is not None and not self.ahead:
                self.collector.add(self.last, values)
                return
            self.ahead = True
        self.last = self.last if epoch is None else epoch
        if lost and self.last is not None:
            self.collector.lose(self.last, lost)
        self.waiting.append(values)
        if epoch is not None:
            for known in self.waiting:
                self.collector.add(epoch, known)
            self.waiting = []

    def _epoch(self, line: int, row: Sequence[str], values: Mapping[str, float]) -> int | None:
        if self.layout.epoch is None:
            return self._counted(row, values)
        cell = cell_of(row, self.layout.epoch)
        if not cell or cell.lower() == "nan":
            return None
        epoch = _epoch_in(cell)
        if epoch is None or epoch > 1e9:
            raise RecordError(
                f"{self.path}, line {line}: '{cell[:40]}' is no epoch: take the row out, or name "
                "the column of the epochs with --column epoch=NAME"
            )
        self.fractional |= epoch != int(epoch)
        return math.ceil(epoch - 1e-6)

    def _counted(self, row: Sequence[str], values: Mapping[str, float]) -> int | None:
        """Return the epoch that the row ends; steps that go back tell a training begun again."""
        asked = self.collector.asked
        if self.layout.phase is None:
            ends = not self.ending.isdisjoint(values)
        else:  # each row says its data
            ends = any(is_test_accuracy(name, asked) for name in values)
        if not ends:
            return None
        self.ends += 1
        step = None if self.layout.step is None else number(cell_of(row, self.layout.step))
        if step is None:
            self.steps.append(math.inf)
        else:
            del self.steps[bisect_left(self.steps, step) :]
            self.steps.append(step)
        return len(self.steps)


def _layout(path: Path, names: Sequence[str], asked: Mapping[str, str], run: str | None) -> _Layout:
    own = {at: name for at, name in enumerate(names) if name}
    wide = by_run(own)
    if wide:
        picked = choose_run(str(path), list(wide), run)
        common = {at: name for at, name in own.items() if " - " not in name}
        own = common | wide[picked]
    lower = {name.lower(): at for at, name in reversed(own.items())}
    runs = next((lower[name] for name in RUNS if name in lower), None)
    phase = next((lower[name] for name in PHASES if name in lower), None)
    epochs = [at for at, name in own.items() if (m := meaning(name)) and m.field == EPOCH]
    epochs.sort(key=lambda at: own[at].lower() != "epoch")
    epoch = epochs[0] if epochs else None
    if "epoch" in asked:
        epoch = next((at for at, name in own.items() if name == asked["epoch"]), None)
        if epoch is None:
            raise no_column(str(path), asked["epoch"], own.values())
    phase, survey = _survey(path, names, own, epoch, phase, asked)
    own_columns = [] if wide else survey.apart(phase)
    if own_columns:
        picked, found_runs = by_columns(path, own_columns, run), tuple(own_columns)
    else:
        picked, runs, phase = by_rows(path, runs, phase, run, wide=bool(wide))
        found_runs = () if runs is None else (runs,)
    unordered = not found_runs and survey.each_once and not survey.ascending
    steps = [at for at, name in own.items() if (m := meaning(name)) and m.field == STEP]
    hugging = epoch is not None and (
        "/" in own[epoch] or any(name.startswith(("eval_", "eval/")) for name in own.values())
    )
    return _Layout(
        own,
        epoch,
        steps[0] if steps else None,
        phase,
        found_runs,
        picked,
        hugging,
        bool(wide),
        unordered,
    )


def _survey(
    path: Path,
    names: Sequence[str],
    own: Mapping[int, str],
    epoch: int | None,
    phase: int | None,
    asked: Mapping[str, str],
) -> tuple[int | None, Survey]:
    """Look at all rows of a table with epochs, and return the column of the data they are of."""
    given = set(asked.values())
    meant = {at: meaning(name) for at, name in own.items()}
    tested = [
        at
        for at, m in meant.items()
        if own[at] in given or (m and m.field in (ACCURACY, LOSS) and m.split != TRAIN)
    ]
    strange = {at: own[at] for at, m in meant.items() if m is None and own[at] not in given}
    survey = Survey(epoch, tested, strange)
    if epoch is not None:
        rows = open_table(path)[1]
        survey.look((_epoch_in(cell_of(row, epoch)), row) for _, row in rows)
        phase = survey.phase(phase)
    return phase, survey


def _in_order(
    rows: Iterable[tuple[int, list[str]]], layout: _Layout
) -> Iterable[tuple[int, list[str]]]:
    """Return the rows by their epochs, where each has one of its own and they are not."""
    at = layout.epoch
    if not layout.unordered or at is None:
        return rows
    rows = (item for item in rows if item[1])
    return sorted(rows, key=lambda item: _epoch_in(cell_of(item[1], at)) or 0.0)


def _epoch_in(cell: str) -> float | None:
    """Return the epoch that a cell says, like 3, 3/90 or epoch 3; None where it says none."""
    found = _EPOCH.fullmatch(cell)
    return None if found is None else float(found[1])


def _source(names: Sequence[str], layout: _Layout, reader: _Reader) -> str:
    if layout.wide or "_runtime" in names:
        return "wandb"
    lightning = "step" in names and "epoch" in names and reader.sparse
    return "lightning" if lightning and not layout.hugging else "csv"


def _part_seconds(log: Log) -> None:
    """Make seconds of each epoch from those since the start, where the log has these."""
    times = [row["seconds"] for row in log.rows if "seconds" in row]
    if len(times) < 3 or len(times) < len(log.rows):
        return
    rising = all(before < after for before, after in pairwise(times))
    if rising and times[-1] >= 0.5 * len(times) * times[0]:
        for row, before, after in zip(log.rows, [0.0, *times], times, strict=False):
            row["seconds"] = after - before
        log.notes.append(RUNNING)


def _is_number(name: str) -> bool:
    return number(name) is not None
