"""When a probe is due: plain functions from a step to a bool, which compose."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from trainscope.errors import ProbeError


class Step(int):
    """A number of optimizer steps done, which knows the epochs done where that is known.

    A plain `int` for every purpose but `at_epochs`.

    Args:
        step: Steps done.
        steps_per_epoch: Steps of one epoch; None where it is not known.
    """

    steps_per_epoch: int | None

    def __new__(cls, step: int, steps_per_epoch: int | None = None) -> Step:
        """Return the number with what is known of epochs."""
        made = super().__new__(cls, step)
        made.steps_per_epoch = steps_per_epoch or None
        return made

    @property
    def epoch(self) -> float | None:
        """Return the epochs done, with fractions; None where that is not known."""
        return None if self.steps_per_epoch is None else int(self) / self.steps_per_epoch


When = Callable[[int], bool]
"""True for the steps (done, 0 before the first one) at which something is due."""


def every(steps: int) -> When:
    """Return a schedule that is due at 0, n, 2n, ... steps."""
    if steps < 1:
        raise ProbeError(f"every({steps}): give 1 step or more")
    return partial(_every, steps)


def at_steps(*steps: int) -> When:
    """Return a schedule that is due after just these numbers of steps."""
    return partial(_at_steps, frozenset(steps))


def at_epochs(*epochs: float, steps_per_epoch: int | None = None) -> When:
    """Return a schedule that is due when so many epochs are done (0: before the first step).

    Args:
        epochs: Epochs done; a fraction is rounded to the nearest step.
        steps_per_epoch: Steps of one epoch. Not needed where the hook knows it, as in trainscope's
            own training, Lightning's and Hugging Face's.
    """
    return partial(_at_epochs, epochs, steps_per_epoch)


def every_epochs(epochs: int, *, steps_per_epoch: int | None = None) -> When:
    """Return a schedule that is due after 0, n, 2n, ... whole epochs; otherwise as `at_epochs`."""
    if epochs < 1:
        raise ProbeError(f"every_epochs({epochs}): give 1 epoch or more")
    return partial(_every_epochs, epochs, steps_per_epoch)


def log_spaced(per_decade: int = 4) -> When:
    """Return a schedule that is due at 0, 1 and then so many times a decade: 1, 2, 3, 6, 10, 18...

    Args:
        per_decade: k; due at 10^(i/k) for i = 0, 1, 2, ..., rounded to whole steps.
    """
    if per_decade < 1:
        raise ProbeError(f"log_spaced({per_decade}): give 1 or more")
    return partial(_log_spaced, per_decade)


def any_of(*schedules: When) -> When:
    """Return a schedule that is due when one of these is."""
    return partial(_any_of, schedules)


def all_of(*schedules: When) -> When:
    """Return a schedule that is due when all of these are."""
    return partial(_all_of, schedules)


def between(first: int, last: int) -> When:
    """Return a schedule that is due at every step from `first` to `last`, both included."""
    return partial(_between, first, last)


def always(step: int) -> bool:
    """Be due at every step."""
    return True


def never(step: int) -> bool:
    """Be due at no step."""
    return False


# The rules are functions of the module, not of a call, so that schedules can be pickled.


def _every(steps: int, step: int) -> bool:
    return step % steps == 0


def _at_steps(steps: frozenset[int], step: int) -> bool:
    return int(step) in steps


def _at_epochs(epochs: tuple[float, ...], given: int | None, step: int) -> bool:
    if step == 0:  # known without knowing how long an epoch is
        return 0 in epochs
    length = given or _steps_per_epoch(step)
    return any(step == round(epoch * length) for epoch in epochs)


def _every_epochs(epochs: int, given: int | None, step: int) -> bool:
    return step == 0 or step % (epochs * (given or _steps_per_epoch(step))) == 0


def _log_spaced(per_decade: int, step: int) -> bool:
    if step < 1:
        return step == 0
    near = round(math.log10(step) * per_decade)
    return any(round(10 ** (i / per_decade)) == step for i in (near - 1, near, near + 1))


def _any_of(schedules: tuple[When, ...], step: int) -> bool:
    return any(due(step) for due in schedules)


def _all_of(schedules: tuple[When, ...], step: int) -> bool:
    return all(due(step) for due in schedules)


def _between(first: int, last: int, step: int) -> bool:
    return first <= step <= last


def _steps_per_epoch(step: int) -> int:
    length = step.steps_per_epoch if isinstance(step, Step) else None
    if length is None:
        raise ProbeError(
            "a schedule by epochs needs to know the steps of one: give steps_per_epoch to "
            "attach(), or to the schedule"
        )
    return length
