"""The errors a person can cause, each with one sentence: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

Field = tuple[str | int, ...]
"""The way to a value in a record, from outside in: ("lora", "rank")."""


class TrainscopeError(Exception):
    """Something the user can put right; the command line prints its message and exits 2.

    Args:
        message: The sentence.
        field: What of the record that was asked for is at fault, like ("ratio",); () where it is
            the record as a whole. What read the record says by it where in its file that stands.
    """

    def __init__(self, message: str = "", *, field: Field = ()) -> None:
        super().__init__(message)
        self.field = field


class CheckpointError(TrainscopeError):
    """A checkpoint that is missing, damaged, unsafe to load, or not recognised."""


class DataError(TrainscopeError):
    """A data set that is missing, or does not fit the network."""


class NotFetchedError(DataError):
    """A public data set that is not here and could be fetched.

    Args:
        message: The sentence up to the offer to fetch it, for those who fetch nothing.
        offer: The rest of it.
    """

    def __init__(self, message: str, offer: str = "") -> None:
        super().__init__(message + offer)
        self.without_offer = message


class ActionError(TrainscopeError):
    """A sparsifying action that cannot be done, or would do nothing."""


class NoOpError(ActionError):
    """An action whose work was done before: masks hold as many weights at zero already.

    Args:
        message: The sentence.
        reached: The share at zero of the weights that the action was asked of.
    """

    def __init__(self, message: str, reached: float = 0.0) -> None:
        super().__init__(message)
        self.reached = reached


class ProbeError(TrainscopeError):
    """A probe that does not exist, or was given options it cannot use."""


class TaskError(ProbeError):
    """A task that does not exist, or does not fit a network's outputs or its batches."""


class ScheduleError(TrainscopeError):
    """An LR schedule or recipe that cannot be read."""


class RecordError(TrainscopeError):
    """A record (Measurement, Diagnosis, Run) that cannot be read, or a file not written."""


class StudyError(TrainscopeError):
    """A study that cannot be read or run, or a store that cannot be opened.

    Args:
        message: The sentence.
        bare: It without the place in a file that stands before it.
        field: As `TrainscopeError` has it.
    """

    def __init__(self, message: str, bare: str | None = None, *, field: Field = ()) -> None:
        super().__init__(message, field=field)
        self.bare = message if bare is None else bare


class UnknownNameError(RecordError, KeyError):
    """A name that a record does not have."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


@contextmanager
def about(*outer: str | int) -> Iterator[None]:
    """Say of the errors of a block in which field of a record what they are about stands."""
    try:
        yield
    except TrainscopeError as error:
        error.field = (*outer, *error.field)
        raise


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
