"""What the lines of a text log say, one after the other: the epoch, its LR, its values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainscope.records.imports.bars import Bars, Counts
from trainscope.records.imports.collect import EpochCollector
from trainscope.records.imports.log import COUNTED, Log, no_column
from trainscope.records.imports.names import (
    ACCURACY,
    EPOCH,
    LOSS,
    LR,
    SECONDS,
    STEP,
    TEST,
    TRAIN,
    VAL,
    ending_names,
    is_test_accuracy,
    meaning,
    split_in,
)
from trainscope.records.imports.words import Line, Pair, ends_in, read_line

MOST_BEFORE = 10_000
"""Lines that are held before the first epoch."""
MOST_KINDS = 20_000
"""Names whose kind is kept."""
ONCE = "The log has its LR before the first epoch alone: it was taken to hold for all of them."
BEHIND = (
    "Each LR stands behind the values of its epoch, and was taken to be of that epoch; where a "
    "scheduler had stepped before it was logged, give --schedule."
)
AGAIN = "A test after the last epoch's own was left out."
TWICE = (
    "{} epochs have a second test on a line of its own, which was left out: where the first one is "
    "of training data, let the log say so."
)
_A_STEP = re.compile(r"\d[num\u03bc]?s/step")
"""Keras's bars, and Paddle's, which tell running means."""
DIGIT = re.compile("[0-9]")
_REDUCED = re.compile(r"\b(reducing|adjusting) learning rate\b", re.IGNORECASE)
_ENDED = re.compile(r"\b(done|complete|completed|finished|ended)\b", re.IGNORECASE)
_SETTINGS = re.compile(r".{0,60}\bNamespace\(")


def _losses(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if (m := meaning(name)) and m.field == LOSS)


def _tests(splits: set[str]) -> bool:
    return not splits.isdisjoint((VAL, TEST))


def _all_tests(names: Iterable[str]) -> bool:
    return all(split_in(name) in (VAL, TEST) for name in names)


@dataclass
class LineReader:
    """Takes the lines of a log, and holds what the last ones said until an epoch is whole."""

    collector: EpochCollector
    epoch: int | None = None
    heading: str = ""
    section: str = ""
    fresh: bool = False
    steps: list[float | None] = field(default_factory=list)
    step: float | None = None
    rate: float | None = None
    rates: dict[int, float] = field(default_factory=dict)
    behind: dict[int, float] = field(default_factory=dict)
    ahead: bool = False
    before: list[dict[str, float]] = field(default_factory=list)
    tested: set[str] = field(default_factory=set)
    left_out: set[int] = field(default_factory=set)
    rates_within: bool = False
    over: bool = False
    own: set[str] = field(default_factory=set)
    since: bool = False
    between: bool | None = None
    lined: bool = False
    kinds: dict[str, tuple[bool, bool, bool]] = field(default_factory=dict)
    counted: bool = False  # whether counts are of epochs
    barred: bool = False  # whether the second bar of an epoch is of the test
    bars: Bars = field(default_factory=Bars)
    counts: Counts = field(default_factory=Counts)
    bar: int = 0
    any_test: bool = False
    stepped: bool = field(init=False)  # whether steps are counted, and not epochs
    wanted: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Take the names that a person gave."""
        asked = self.collector.asked
        axis = asked.get("epoch", "epoch")
        found = meaning(axis)
        self.stepped = found is not None and found.field == STEP
        if not self.stepped and (found is None or found.field != EPOCH):
            raise no_column(self.collector.path, axis, ("epoch", "step"))
        self.wanted = frozenset(name for part, name in asked.items() if part != "epoch")

    def take(self, text: str) -> None:
        """Take a line."""
        if DIGIT.search(text) is None:
            split = read_line(text[:200]).split_at(200) if len(text) < 200 else ""
            if split and _ENDED.search(text) is None:
                self.heading, self.fresh = split, True
            return
        if "(" in text and _SETTINGS.match(text):
            return
        line = read_line(text, self.wanted)
        if line.step is not None:  # holds for the lines below, as Caffe's
            self.step = line.step
        if self.stepped:  # told by steps, as asked for
            line.epoch = None if line.step is None else int(line.step)
        if self.counted and line.epoch is None and line.done is not None:
            line.epoch, line.batch = int(line.done), False
        if "learning rate" in text and _REDUCED.search(text):  # from the next epoch on
            self.rate = line.pairs[-1].value if line.pairs else self.rate
            return
        if line.epoch is not None:
            if line.epoch != self.epoch:
                self.tested.clear()
                self.section = ""
            if not line.pairs and not line.batch:  # --- validate (epoch=3) ---
                named = line.split_at(len(text))
                self.section = named if named in (VAL, TEST) else ""
            if not line.batch:
                self.bars.begin()
            self.epoch = line.epoch
            self.over = _ENDED.search(text) is not None
            if self.lined:
                self.between = self.since and self.between is not False
            self.lined, self.since = True, False
            if not self.fresh:  # a heading right above the line is of it
                self.heading = ""
            self.collector.see(("epoch",))
        self._see_bar(line)
        values: dict[str, float] = {}
        tested, trained = False, False
        for pair in line.pairs:
            name, value = self._named(line, pair)
            if self.epoch is None:
                tested |= self._kind(name)[0]
                trained |= self._kind(name)[2] or bool(split_in(pair.name))
            if value is not None and not math.isfinite(value) and self.epoch is not None:
                self.collector.lose(self.epoch, (name,))
            if value is not None and math.isfinite(value):
                values.setdefault(name, value)  # later ones of a name tell of the best epoch
            if name not in self.collector.names:
                self.collector.see((name,))
        if tested and self.epoch is None:  # of batches, a line is of training or of a test alone
            self.counts.see(line.done if trained and line.step is None else None, line.of)
        if values:
            self.fresh = False
            if line.epoch is None:
                self.since = True
            else:
                self.own = {split_in(name) for name in values}
            self._give(line, values)

    @property
    def is_named_last(self) -> bool:
        """Whether lines that name an epoch stand behind its values, as "epoch 3 done" does.

        Then values stand before the first such line and between any two, and none behind the last.
        A test alone before the first may be one of the network before training.
        """
        if self.epoch is None or self.since or self.between is False:
            return False
        before = {split_in(name) for values in self.before for name in values}
        if self.between is None and (not _tests(before) or _tests(self.own)):  # a single epoch
            return False
        return TRAIN in before or (self.over and _tests(before))

    def log(self) -> Log:
        """Return the log, when all lines are taken."""
        counted = self.epoch is None
        start = None
        if counted:
            ends, tested = 0, []
            named = (name for values in self.before for name in values)
            ending = ending_names(named, self.collector.asked)
            held: set[str] = set()  # names of the epoch that ended right above
            for values, step in zip(self.before, self.steps, strict=True):
                ended = not ending.isdisjoint(values)
                if held and not ended and held.isdisjoint(values) and _all_tests(values):
                    self.collector.add(ends, values)  # a test loss below its accuracy
                    held |= values.keys()
                    continue
                self.collector.add(ends + 1, values)
                held = set()
                if ended:
                    ends += 1
                    tested.append(step)
                    held = set(self.collector.rows.get(ends, ()))
        log = self.collector.log("text")
        name = log.taken["test_accuracy"]
        if not counted:
            known = [values[name] for values in self.before if name in values]
            start = known[-1] if known else None
        log.start_accuracy = start
        if counted:
            log.take_step_zero(tested[:2])
        rates = self.rates
        known = [int(row["epoch"]) for row in log.rows if "test_accuracy" in row]
        if self.behind and not self.ahead and all(epoch in self.behind for epoch in known):
            rates = self.behind
            log.notes.append(BEHIND)
        for row in log.rows:
            epoch = int(row["epoch"])
            if "lr" not in row and epoch in rates:
                row["lr"] = rates[epoch]
                log.taken.setdefault("lr", "lr")
        once = not counted or sum("lr" in row for row in log.rows) < 2
        if log.taken.get("lr") == "lr" and not self.rates_within and once and len(log.rows) > 1:
            log.notes.append(ONCE)
        if counted:
            log.notes.append(COUNTED)
        if self.left_out:
            several = len(self.left_out)
            log.notes.append(AGAIN if several < 2 else TWICE.format(several))
        log.taken["epoch"] = "" if counted else self.collector.asked.get("epoch", "epoch")
        return log

    def _named(self, line: Line, pair: Pair) -> tuple[str, float | None]:
        """Return the full name of a number, with its data, and what counts of it."""
        found = meaning(pair.name)
        given = next((name for name in self.wanted if ends_in(pair.name, name)), None)
        if found is None and given is not None:
            split = split_in(pair.name) or line.split_at(pair.at)
            split = split or self.section or (TRAIN if line.batch else self.heading)
            told = pair.value if pair.average is None else pair.average
            return f"{split}/{given}" if split else given, told
        if found is None or found.field in (LR, SECONDS):
            return (
                pair.name,
                None if line.batch and found and found.field == SECONDS else pair.value,
            )
        split = found.split or line.split_at(pair.at)
        starred = line.text.lstrip().startswith("* ") and found.field == ACCURACY
        split = split or self.section
        bar = TEST if self.barred and self.bar == 1 else TRAIN
        split = split or (bar if line.batch else TEST if starred else self.heading)
        name = pair.name if found.split or not split else f"{split}/{pair.name}"
        if line.averaged(pair.at):
            name = f"ema {name}"
        if not line.batch:
            return name, pair.value
        if pair.average is not None:
            self.collector.means.add(name if split == TRAIN else f"{name} (batches)")
        if split == TRAIN:
            return name, pair.value if pair.average is None else pair.average
        if found.split:  # val_acc=0.55 behind a progress bar
            return name, pair.value if pair.average is None else pair.average
        own = pair.value if line.complete else None
        value = pair.average if line.ended and pair.average is not None else own
        return f"{name} (batches)", value

    def _see_bar(self, line: Line) -> None:
        """Take the count of a bar that does not name its data."""
        if self.any_test or not line.batch or line.done is None or line.of is None:
            return
        if self.epoch is None:
            return
        named = any(m.split for pair in line.pairs if (m := meaning(pair.name)))
        named = named or bool(line.split_at(len(line.text)))
        self.bar = 0 if named else self.bars.see(self.epoch, line.done, line.of)

    def _sums_up(self, line: Line, values: Iterable[str]) -> bool:
        """Tell a line at the end of a bar whose numbers are of all of it, not of its last batch."""
        if not line.complete:
            return False
        tested = any(split_in(name) in (VAL, TEST) for name in values)
        return tested or self.barred or _A_STEP.search(line.text) is not None

    def _kind(self, name: str) -> tuple[bool, bool, bool]:
        """Return whether a name is of a test accuracy, of an LR, and of training."""
        kind = self.kinds.get(name)
        if kind is None:
            found = meaning(name)
            kind = (
                is_test_accuracy(name, self.collector.asked),
                found is not None and found.field == LR,
                found is not None and found.split == TRAIN,
            )
            if len(self.kinds) < MOST_KINDS:
                self.kinds[name] = kind
        return kind

    def _give(self, line: Line, values: dict[str, float]) -> None:
        tests, rates, trained = [], [], False
        for name in values:
            is_test, is_rate, is_trained = self._kind(name)
            if is_test:
                tests.append(name)
            if is_rate:
                rates.append(name)
            trained |= is_trained
        whole = dict(values)
        if rates:
            self.rate = values[rates[0]]
            self.rates_within |= self.epoch is not None
            if line.epoch is None and not line.batch:
                if self.epoch is not None and self.tested and not tests and not trained:
                    self.behind[self.epoch] = self.rate
                else:
                    self.ahead = True
                for name in rates:
                    del values[name]
                tests = [name for name in tests if name in values]
        if not tests and trained:
            self.tested.clear()
        if self.epoch is None:
            if len(self.before) < MOST_BEFORE:
                self.before.append(whole)
                self.steps.append(self.step)
            return
        for name in tests:
            if name in self.tested and not line.batch and line.epoch is None:
                del values[name]
                self.left_out.add(self.epoch)
        self.tested.update(tests)
        self.any_test |= bool(tests) and not self.barred
        parts = values if line.batch and not self._sums_up(line, values) else ()
        self.collector.add(self.epoch, values, parts=_losses(parts))
        if tests and self.rate is not None:
            self.rates[self.epoch] = self.rate
