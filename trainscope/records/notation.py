"""Writing learning rates and their stages as the field does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal


def write_lr(lr: float) -> str:
    """Write a learning rate as the field does, in the fewest digits that read back as itself.

    >>> write_lr(0.01), write_lr(0.0005), write_lr(1.0), write_lr(0.00015)
    ('1e-2', '5e-4', '1e0', '1.5e-4')
    """
    if lr == 0:
        return "0"
    sign, numbers, exponent = Decimal(repr(float(lr))).as_tuple()
    if not isinstance(exponent, int):  # NaN and infinity, which an error may have to name
        return repr(float(lr))
    digits = "".join(map(str, numbers)).rstrip("0") or "0"
    power = exponent + len(numbers) - 1
    return f"{'-' * sign}{digits[0]}{'.' + digits[1:] if len(digits) > 1 else ''}e{power}"


def lr_time(spans: Iterable[tuple[int, float]]) -> float:
    """Return the sum of learning rates over epochs, added up as they are written, in decimals.

    Args:
        spans: (epochs, the learning rate of each of them).

    >>> lr_time([(30, 0.1), (30, 0.01), (15, 0.001), (8, 1e-4), (7, 1e-5)])
    3.31587
    """
    return float(sum((n * Decimal(repr(float(lr))) for n, lr in spans), Decimal(0)))


def write_stages(rates: Sequence[tuple[int, float]]) -> str:
    """Write the learning rates of epochs as stages, like `0:1e-2,30:1e-3`.

    Args:
        rates: (epochs done by its end, learning rate) of each epoch, ascending. An epoch that is
            missing had the learning rate of the next one that is there.
    """
    stages: list[tuple[int, float]] = []
    start = 0
    for epoch, rate in rates:
        if not stages or stages[-1][1] != rate:
            stages.append((start, rate))
        start = epoch
    return ",".join(f"{first}:{write_lr(rate)}" for first, rate in stages)
