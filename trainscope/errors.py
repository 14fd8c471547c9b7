"""The errors a person can cause, each with one sentence: what is wrong, where, what to do."""

from __future__ import annotations


class TrainscopeError(Exception):
    """Something the user can put right; the command line prints its message and exits 2."""


class CheckpointError(TrainscopeError):
    """A checkpoint that is missing, damaged, unsafe to load, or not recognised."""


class DataError(TrainscopeError):
    """A data set that is missing, or does not fit the network."""


class ActionError(TrainscopeError):
    """A sparsifying action that cannot be done, or would do nothing."""


class NoOpError(ActionError):
    """An action whose work was done before: masks hold as many weights at zero already.

    Args:
        message: The sentence.
        reached: The share at zero of the weights that the action was asked of.
    """

    def __init__(self, message: str, reached: float) -> None:
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

    Attributes:
        bare: The sentence without the place in a file that stands before it.
    """

    bare: str

    def __init__(self, message: str, bare: str | None = None) -> None:
        super().__init__(message)
        self.bare = message if bare is None else bare


class UnknownNameError(RecordError, KeyError):
    """A name that a record does not have."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
