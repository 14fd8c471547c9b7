"""The LR schedules that people use, made from a first learning rate and a number of epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

from trainscope.errors import ScheduleError
from trainscope.training.schedule import (
    MAX_LR,
    LRSchedule,
    Stage,
    constant,
    from_rates,
    write_lr,
)

LONGEST_STAGE = 30
LAST_LR = 1e-5
FEW_STAGES = 8
"""A schedule of more stages is told by its shape rather than by its stages."""
FEWEST_FALLING = 4
"""Epochs of which a shape can be told: any two or three lie near one."""
ALIKE = 0.01
"""Share of the largest learning rate by which a schedule may differ from the shape it is told by,
as logs round it, or write that of an epoch's end."""
SHAPES = ("halving", "cosine", "cyclic", "constant", "rewind")
"""The names of the shapes, as `shaped` takes them."""
ENDING = ("cosine", "cyclic")
"""Those whose smallest learning rate can be said."""


def shaped(
    name: str, minimum: float | None, pretraining: LRSchedule | None
) -> Callable[[float, int], LRSchedule]:
    """Return a shape by name: from a first learning rate and a number of epochs to a schedule.

    Args:
        name: One of `SHAPES`.
        minimum: Where a cosine or a cycle ends; by default 0, or a hundredth of the largest.
        pretraining: The schedule of pretraining, whose last epochs "rewind" takes.

    Raises:
        ScheduleError: There is no such shape, nothing to rewind, or a smallest LR where the shape
            has none.
    """
    if name not in SHAPES:
        said = f"no shape of an LR schedule is named '{name}': {', '.join(SHAPES)}"
        raise ScheduleError(said, field=("shape",))
    if minimum is not None and name not in ENDING:
        raise ScheduleError(
            f"a smallest LR (--min-lr, min_lr) is where a cosine or a cycle ends: with the shape "
            f"{name} leave it out",
            field=("min_lr",),
        )
    if name == "rewind":
        if pretraining is None:
            raise ScheduleError(
                "LR rewinding needs the schedule of pretraining: write a recipe like P60F60,1e-3 "
                "or give --pretrain-schedule and --pretrain-epochs"
            )
        known = pretraining
        return lambda lr, epochs: rewind(known, epochs)
    if name == "cosine":
        return lambda lr, epochs: cosine(lr, epochs, minimum=minimum or 0.0)
    if name == "cyclic":
        return lambda lr, epochs: cyclic_restart(lr, epochs, low=minimum)
    return constant if name == "constant" else halving


def in_words(schedule: LRSchedule) -> str:
    """Write a schedule by its stages, or, of more than a few, by its shape.

    Like "0:1e-2,30:1e-3", "cosine, 1e-2 to 0", "5 of warm-up, linear, 1e-1 to 1e-3", or, where no
    shape fits, "12 stages, 1e-1 to 1e-4".
    """
    if len(schedule.stages) <= FEW_STAGES:
        return str(schedule)
    rates = schedule.rates()
    peak = max(rates)
    rise = rates.index(peak)
    fall = rates[rise:]
    begun = f"{rise} of warm-up, " if rise else ""
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
        "linear": lambda share: 1 - share,
    }
    for name, left in shapes.items() if len(fall) >= FEWEST_FALLING else ():
        for late in (0, 1):  # by the start or by the end of an epoch
            shares = [left((e + late) / len(fall)) for e in range(len(fall))]
            low = (fall[-1] - peak * shares[-1]) / (1 - shares[-1])
            off = max(abs(low + (peak - low) * w - lr) for w, lr in zip(shares, fall, strict=True))
            if off <= ALIKE * peak:
                end = low if low > ALIKE * peak / 2 else 0.0
                return f"{begun}{name}, {_rounded(peak)} to {_rounded(end)}"
    return f"{begun}{len(schedule.stages)} stages, {_rounded(peak)} to {_rounded(fall[-1])}"


def _rounded(lr: float) -> str:
    return write_lr(float(f"{lr:.2e}")) if lr else "0"


def halving(
    lr: float, epochs: int, *, longest: int = LONGEST_STAGE, last: float = LAST_LR
) -> LRSchedule:
    """Return step decays by 10, each stage half of the epochs left.

    A stage takes n = min(longest, ceil(left / 2)) epochs; the next LR is a tenth; the last stage,
    whose tenth would fall below `last`, takes what is left. This is the rule behind the schedules
    of Wang et al. (2023): 90 epochs from 1e-1 are `0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5`.

    Args:
        lr: The first learning rate.
        epochs: The total.
        longest: The longest stage but the last, epochs.
        last: The smallest learning rate.

    Raises:
        ScheduleError: No epochs, or a learning rate out of range.
    """
    _check(lr, epochs, last)
    stages, start, rate = [], 0, Decimal(write_lr(lr))
    while start < epochs:
        stages.append(Stage(start, float(rate)))
        rate /= 10
        if rate < Decimal(write_lr(last)):
            break
        start += min(longest, -((start - epochs) // 2))
    return LRSchedule(tuple(stages), epochs)


def cosine(lr: float, epochs: int, *, minimum: float = 0.0) -> LRSchedule:
    r"""Return half a cosine from the first learning rate towards a minimum.

    .. math:: \eta_e = \eta_{min} + (\eta - \eta_{min}) (1 + \cos(\pi e / T)) / 2

    for epochs e = 0 .. T - 1, so that the minimum itself would be epoch T's. Source: Loshchilov and
    Hutter (2017).

    Args:
        lr: The first learning rate.
        epochs: T.
        minimum: The learning rate at the end, 0 or more.

    Raises:
        ScheduleError: No epochs, a learning rate out of range, or a minimum above the first.
    """
    _check(lr, epochs, minimum or lr)
    if minimum < 0 or minimum > lr:
        raise ScheduleError(f"a cosine from {lr:g} cannot end at {minimum:g}: give 0 to {lr:g}")
    waves = [(1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]
    return from_rates([_round(minimum + (lr - minimum) * wave) for wave in waves])


def cyclic_restart(
    lr: float, epochs: int, *, warmup: float = 0.1, low: float | None = None
) -> LRSchedule:
    """Return one cycle: a linear rise to the largest learning rate, then a cosine down.

    Cyclic learning rate restarting of Le and Hua (ICLR 2021): retraining restarts with the largest
    learning rate of pretraining, warmed up over the first tenth of the epochs, then annealed.

    Args:
        lr: The largest learning rate, that of pretraining.
        epochs: The total.
        warmup: The share of the epochs that rise, in [0, 1).
        low: The learning rate at both ends; by default a hundredth of `lr`.

    Raises:
        ScheduleError: As `cosine`, or a share out of range.
    """
    if not 0 <= warmup < 1:
        raise ScheduleError(f"the share of epochs that warm up is in [0, 1), not {warmup:g}")
    _check(lr, epochs, lr if low is None else low)
    ends = lr / 100 if low is None else low
    rise = min(math.ceil(warmup * epochs), epochs - 1)
    down = cosine(lr, epochs - rise, minimum=ends)
    return warm_up(down, rise, start=ends) if rise else down


def rewind(pretraining: LRSchedule, epochs: int) -> LRSchedule:
    """Return the last epochs of the pretraining schedule.

    Learning-rate rewinding of Renda et al. (ICLR 2020).

    Args:
        pretraining: The schedule of pretraining.
        epochs: How many of its epochs, from the end, at most all.

    Raises:
        ScheduleError: Fewer than one, or more than pretraining had.
    """
    if not 1 <= epochs <= pretraining.total:
        raise ScheduleError(
            f"a pretraining of {pretraining.total} epochs cannot be rewound by {epochs}: "
            f"give 1 to {pretraining.total}"
        )
    first = pretraining.total - epochs
    stages = [Stage(s.start - first, s.lr, s.text) for s in pretraining.stages if s.start > first]
    held = max((s for s in pretraining.stages if s.start <= first), key=lambda s: s.start)
    return LRSchedule((Stage(0, held.lr, held.text), *stages), epochs)


def warm_up(schedule: LRSchedule, epochs: int, *, start: float | None = None) -> LRSchedule:
    """Put a linear rise in front of a schedule; the total grows by its epochs.

    Epoch e of n has the share (e + 1) / (n + 1) of the way from `start` to the first learning rate,
    which the schedule itself then reaches.

    Args:
        schedule: What follows.
        epochs: n, the epochs that rise.
        start: Where the rise sets out from, 0 or more; by default 0.

    Raises:
        ScheduleError: Fewer than one epoch, or a start above the first learning rate.
    """
    first, low = schedule.stages[0].lr, 0.0 if start is None else start
    if epochs < 1 or not 0 <= low <= first:
        raise ScheduleError(
            f"a warm-up takes one epoch or more and rises to {first:g}: "
            f"not {epochs} epochs from {low:g}"
        )
    rise = [_round(low + (first - low) * (e + 1) / (epochs + 1)) for e in range(epochs)]
    stages = [Stage(s.start + epochs, s.lr, s.text) for s in schedule.stages]
    return LRSchedule((*from_rates(rise).stages, *stages), schedule.total + epochs)


def lengthen_first_stage(schedule: LRSchedule, epochs: int) -> LRSchedule:
    """Return the schedule with its first LR stage longer by a number of epochs: "(+60 epochs)".

    The epochs are put in before the first decay, at the learning rate that ends there. Source: Wang
    et al. (2023), Table 5.

    Args:
        schedule: Any schedule.
        epochs: How many, 0 or more.

    Raises:
        ScheduleError: Fewer than 0.
    """
    if epochs < 0:
        raise ScheduleError(f"the first stage grows by 0 epochs or more, not {epochs}")
    decay = schedule.first_stage
    stages = [
        stage if stage.start < decay else Stage(stage.start + epochs, stage.lr, stage.text)
        for stage in schedule.stages
    ]
    return LRSchedule(tuple(stages), schedule.total + epochs)


def stretched(schedule: LRSchedule, total: int) -> LRSchedule:
    """Return the schedule over another total of epochs, each stage with its share of them.

    A stage that would begin where the next one does is left out. Liu et al. (ICLR 2019) decay the
    LR at shares of the epochs, so that a longer training from scratch has longer stages.

    Args:
        schedule: Any schedule.
        total: Epochs, 1 or more.

    Raises:
        ScheduleError: Fewer than 1.
    """
    if total < 1:
        raise ScheduleError(f"a schedule has 1 epoch or more, not {total}")
    begin = {round(stage.start * total / schedule.total): stage for stage in schedule.stages}
    stages = (Stage(at, stage.lr, stage.text) for at, stage in begin.items() if at < total)
    return LRSchedule(tuple(stages), total)


def squeezed_pruning_epoch(epoch: int, speedup: float) -> int:
    """Return the pruning epoch under setup SX-B of Wang et al. (2023): epoch / speedup, rounded.

    Pretraining for p / s epochs and retraining for f at a speedup s costs as much as p / s + f / s
    dense epochs, which is what training the pruned network from scratch for p + f epochs costs.
    P30/F90 at 1.11x is pruned after epoch 27.

    Args:
        epoch: p, as written in `P30/F90`.
        speedup: Dense FLOPs / pruned FLOPs, 1 or more.

    Raises:
        ScheduleError: A speedup below 1, or one that leaves no pretraining.
    """
    if not speedup >= 1 or not math.isfinite(speedup):
        raise ScheduleError(f"a speedup is 1 or more (dense FLOPs / pruned FLOPs), not {speedup:g}")
    squeezed = round(epoch / speedup)
    if squeezed < 1:
        raise ScheduleError(f"a speedup of {speedup:g} leaves nothing of P{epoch}/: prune less")
    return squeezed


def _check(lr: float, epochs: int, other: float) -> None:
    if epochs < 1:
        raise ScheduleError(f"a schedule has one epoch or more, not {epochs}")
    for rate in (lr, other):
        if not 0 < rate <= MAX_LR:
            raise ScheduleError(f"{rate:g} is no learning rate in (0, {MAX_LR:g}]")


def _round(rate: float) -> float:
    """Keep six significant digits, which is what a person can read and no training notices."""
    return float(f"{rate:.5e}")
