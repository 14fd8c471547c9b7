"""LR schedules in the field's notation: `0:1e-2,30:1e-3`, with a total of epochs."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

from trainscope.errors import ScheduleError
from trainscope.records.notation import lr_time, write_lr

__all__ = [
    "MAX_EPOCHS",
    "MAX_LR",
    "LRSchedule",
    "Stage",
    "constant",
    "from_rates",
    "parse_rates",
    "parse_schedule",
    "write_lr",
]

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_EPOCH = re.compile(r"(?:0|[1-9][0-9]*)(?![0-9])")
MAX_LR = 1e3
"""A learning rate above this is a slip of the pen."""

MAX_EPOCHS = 1_000_000
"""So is a total above this."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A learning rate held from one epoch on.

    Attributes:
        start: The first epoch of the stage, counted from 0.
        lr: The learning rate.
        text: The learning rate as it was written.
    """

    start: int
    lr: float
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return `epoch:LR`, with the LR as it was written."""
        return f"{self.start}:{self.text or write_lr(self.lr)}"


@dataclass(frozen=True, slots=True)
class LRSchedule:
    """Learning rates by epoch; a stage lasts to the next one, the last to the total.

    A schedule that changes every epoch (cosine, warm-up) has a stage an epoch, so that one notation
    holds every kind and reading what was written gives the same learning rates, bit for bit.

    Attributes:
        stages: The stages, by their first epoch.
        total: The number of epochs.
        recorded: Whether it is from a record: there a warm-up may begin at 0, and a cosine end
            there. Nobody is trained by a schedule with a learning rate of 0.
    """

    stages: tuple[Stage, ...]
    total: int
    recorded: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the order and the range of the stages.

        Raises:
            ScheduleError: The stages do not start at 0, do not ascend, or outrun the total.
        """
        starts = [stage.start for stage in self.stages]
        if not starts or starts[0] != 0:
            raise ScheduleError(f"LR schedule '{self}' must start at epoch 0: write '0:LR' first")
        for before, after in pairwise(starts):
            if after <= before:
                raise ScheduleError(
                    f"LR schedule '{self}': epochs must ascend, but {after} follows {before}"
                )
        for stage in self.stages:
            if not (stage.lr > 0 or (self.recorded and stage.lr == 0)) or stage.lr > MAX_LR:
                raise ScheduleError(
                    f"LR schedule '{self}': {stage} is no learning rate in (0, {MAX_LR:g}]"
                )
        if self.total <= starts[-1]:
            raise ScheduleError(
                f"LR schedule '{self}': its last stage starts at epoch {starts[-1]}, "
                f"so the total must be above that, not {self.total}"
            )
        if self.total > MAX_EPOCHS:
            raise ScheduleError(f"{self.total} epochs are more than the {MAX_EPOCHS} allowed here")

    def __str__(self) -> str:
        """Return the notation, without the total."""
        return ",".join(str(stage) for stage in self.stages)

    def lr(self, epoch: int) -> float:
        """Return the learning rate of one epoch, counted from 0; after the end, the last one.

        Raises:
            ValueError: The epoch is below 0.
        """
        if epoch < 0:
            raise ValueError(f"epochs count from 0, not {epoch}")
        return self.stages[bisect_right(self.stages, epoch, key=lambda stage: stage.start) - 1].lr

    def rates(self) -> list[float]:
        """Return the learning rate of every epoch."""
        return [self.lr(epoch) for epoch in range(self.total)]

    @property
    def first_stage(self) -> int:
        """Return the number of epochs before the first decay."""
        pairs = pairwise(self.stages)
        return next((after.start for before, after in pairs if after.lr < before.lr), self.total)

    @property
    def lr_time(self) -> float:
        """Return the sum of the learning rates over the epochs."""
        ends = [*(stage.start for stage in self.stages[1:]), self.total]
        return lr_time(
            (end - stage.start, stage.lr) for stage, end in zip(self.stages, ends, strict=True)
        )


def from_rates(rates: list[float], *, recorded: bool = False) -> LRSchedule:
    """Return the schedule with a learning rate for every epoch; equal neighbours share a stage.

    Args:
        rates: A learning rate an epoch, at least one.
        recorded: Whether they are from a record, where 0 is one too.
    """
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(rates)) if a != b)] if rates else []
    stages = tuple(Stage(start, rates[start]) for start in starts)
    return LRSchedule(stages, len(rates), recorded)


def constant(lr: float, epochs: int, *, text: str = "") -> LRSchedule:
    """Return one learning rate for a number of epochs."""
    return LRSchedule((Stage(0, lr, text),), epochs)


def parse_schedule(text: str, total: int, *, recorded: bool = False) -> LRSchedule:
    """Read the notation `0:1e-2,30:1e-3`.

    Args:
        text: Stages `epoch:LR` with commas between them and no blanks.
        total: The number of epochs.
        recorded: Whether it is from a record, where 0 is a learning rate too.

    Raises:
        ScheduleError: The text is not of the notation; the message points at the character.
    """
    stages, position = [], 0
    while True:
        start = position
        position, epoch = _take(text, position, _EPOCH, "an epoch (a whole number)")
        if len(epoch) > len(str(MAX_EPOCHS)):
            raise ScheduleError(
                f"LR schedule '{text}': the epoch at character {start + 1} is above {MAX_EPOCHS}"
            )
        position, _ = _take(text, position, re.compile(":"), "':' between epoch and LR")
        position, lr = _take(text, position, _NUMBER, "a learning rate like 1e-2")
        stages.append(Stage(int(epoch), float(lr), lr))
        if position == len(text):
            return LRSchedule(tuple(stages), total, recorded)
        position, _ = _take(text, position, re.compile(","), "',' between stages, or the end")


def parse_rates(text: str) -> tuple[float, ...]:
    """Read learning rates with commas between them, like `1e-2,1e-3`.

    Raises:
        ScheduleError: One of them is no learning rate.
    """
    rates = []
    for part in text.split(","):
        if not _NUMBER.fullmatch(part.strip()) or not 0 < float(part) <= MAX_LR:
            raise ScheduleError(
                f"'{part}' is no learning rate in (0, {MAX_LR:g}]: "
                "write one like 1e-2, or several with commas between them"
            )
        rates.append(float(part))
    return tuple(rates)


def _take(text: str, at: int, pattern: re.Pattern[str], wanted: str) -> tuple[int, str]:
    found = pattern.match(text, at)
    if found is None:
        seen = f"'{text[at]}'" if at < len(text) else "the end"
        raise ScheduleError(
            f"LR schedule '{text}': expected {wanted} at character {at + 1}, found {seen}"
        )
    return found.end(), found.group()
