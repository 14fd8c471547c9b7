"""The processes of a job that measure together: who takes which samples, and what they agree on.

Every collective begins with a vote: a process that raised says so there, and all raise what it
raised, in the same place, in the place of waiting for it for ever. A process alone does nothing.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from trainscope.errors import ProbeError, first_line
from trainscope.foreign import reason
from trainscope.probes.processes.signals import Signals

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that a process waits for the others to come and measure with it."""
WAIT = timedelta(hours=6)
"""The longest that one waits for the others while they measure."""
DO = "call it in every process, or let each measure alone, inside trainscope.probes.alone()"


class Ranks:
    """One process alone: all samples are its own, and nothing is sent.

    Attributes:
        index: Which one this is, from 0 on.
        count: How many there are.
    """

    index, count = 0, 1

    def share(self, samples: int) -> range:
        """Return which of so many samples this process takes, in order over the processes."""
        whole, rest = divmod(samples, self.count)
        start = self.index * whole + min(self.index, rest)
        return range(start, start + whole + (self.index < rest))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes of tensors of one shape, the same bits on each."""
        return values

    def gather(self, rows: Sequence[Tensor]) -> Tensor:
        """Return the rows of all processes in order; at least one process has some."""
        return torch.cat(list(rows))

    def all(self, value: T) -> list[T]:
        """Return what each process holds, in order."""
        return [value]

    def first(self, value: T) -> T:
        """Return what the first process holds."""
        return value

    def exchange(self, what: str, make: Callable[[], T]) -> T:
        """Return what a collective operation of torch returns, begun where all are ready for it.

        Args:
            what: What it does, with the shape: the same in all processes.
            make: Does it.
        """
        return make()

    def together(self) -> AbstractContextManager[None]:
        """Return a block that all processes go through: what one raises, all raise at its end."""
        return nullcontext()

    def arrive(self, patience: float | None = None) -> None:
        """Wait for the other processes.

        Raises:
            ProbeError: One does not come.
        """


ALONE = Ranks()
_FORCED: ContextVar[Ranks | None] = ContextVar("ranks", default=None)
_JOBS: list[tuple[object, Ranks]] = []


@contextmanager
def alone() -> Iterator[None]:
    """Let this process measure by itself inside, whatever job it belongs to."""
    token = _FORCED.set(ALONE)
    try:
        yield
    finally:
        _FORCED.reset(token)


def forced() -> Ranks | None:
    """Return whom this process is to measure with whatever its job; None where nobody said."""
    return _FORCED.get()


def forget() -> None:
    """Forget the job, which is over."""
    _JOBS.clear()


def initialised() -> bool:
    """Tell whether this process belongs to a job that torch knows of."""
    return distributed.is_available() and distributed.is_initialized()


def present() -> Ranks:
    """Return the processes that measure together: those of torch's default process group."""
    forced = _FORCED.get()
    if forced is not None or not initialised() or distributed.get_world_size() == 1:
        return forced or ALONE
    group = distributed.group.WORLD
    for known, job in _JOBS:
        if known is group:
            return job
    _JOBS[:] = [(group, JobRanks())]  # an older group was destroyed
    return _JOBS[0][1]


class _EndedError(BaseException):
    """A block has ended in all processes, with an error of one; past whatever handles errors."""

    def __init__(self, level: int, error: BaseException) -> None:
        self.level, self.error = level, error


class JobRanks(Ranks):
    """The processes of torch's default process group, more than one."""

    def __init__(self) -> None:
        self.index, self.count = distributed.get_rank(), distributed.get_world_size()
        self._group: Any = None
        self._level = self._meetings = 0
        self._lost: str | None = None
        self._signals = Signals()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes."""
        found = values.detach().clone(memory_format=torch.contiguous_format)
        group = self._group if found.device.type == "cpu" else None

        def make() -> None:
            distributed.all_reduce(found, group=group)

        self.exchange(f"sum {tuple(values.shape)} {values.dtype}", make)
        return found

    def gather(self, rows: Sequence[Tensor]) -> Tensor:
        """Return the rows of all processes in order."""
        mine = torch.cat(list(rows)) if rows else None
        found = self.all(None if mine is None else mine.detach().cpu())
        there = torch.cat([each for each in found if each is not None])
        return there if mine is None else there.to(mine.device)

    def all(self, value: T) -> list[T]:
        """Return what each process holds."""
        return self.exchange("objects", lambda: self._objects(value))

    def first(self, value: T) -> T:
        """Return what the first process holds."""
        held: list[Any] = [value]

        def make() -> None:
            distributed.broadcast_object_list(held, src=0, group=self._group)

        self.exchange("the first object", make)
        return value if self.index == 0 else cast("T", held[0])

    def exchange(self, what: str, make: Callable[[], T]) -> T:
        """Do a collective operation after a vote.

        Raises:
            ProbeError: The processes do not do the same, or one is gone.
        """
        if not self._level:  # outside a block nobody would hear of an error
            with self.together():
                return self.exchange(what, make)
        with self._signals.held():
            self._vote(what)
            return self._sent(make)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Lend a block that ends in the same way in all processes."""
        if not self._level:
            self.arrive()
            self._signals.take()
        self._level += 1
        level = self._level
        try:
            try:
                yield
            except _EndedError as ended:
                if ended.level < level:
                    raise
                raise ended.error from ended.error.__cause__
            except BaseException as error:
                self._end(level, error)
                raise
            else:
                self._end(level, None)
        finally:
            self._level -= 1
            if not self._level:
                self._signals.give_back()

    def arrive(self, patience: float | None = None) -> None:
        """Wait for the other processes, through the store by which they found each other.

        Raises:
            ProbeError: One does not come in time. Nothing is left of the attempt.
        """
        if self._lost is not None:
            raise ProbeError(self._lost)
        seconds = PATIENCE if patience is None else patience
        store = distributed.distributed_c10d._get_default_store()
        keys = [f"trainscope/{self._meetings}/{rank}" for rank in range(self.count)]
        store.set(keys[self.index], "here")
        try:
            store.wait(keys, timedelta(seconds=seconds))
        except RuntimeError as error:
            late = [rank for rank, key in enumerate(keys) if not store.check([key])]
            if late:
                store.delete_key(keys[self.index])
                raise ProbeError(
                    f"rank {self.index} measures, and rank {_listed(late)} did not come within "
                    f"{seconds:g} s, though all {self.count} processes of a job measure "
                    f"together: {DO}"
                ) from error
        if self._meetings > 1:  # all have left that one
            store.delete_key(f"trainscope/{self._meetings - 2}/{self.index}")
        self._meetings += 1
        if self._group is None:
            self._group = distributed.new_group(backend="gloo", timeout=WAIT)

    def _end(self, level: int, error: BaseException | None) -> None:
        """Vote at the end of a block; raise what all agree on, if somebody raised."""
        try:
            with self._signals.held(quiet=error is not None):
                self._vote("the end", error)
        except _EndedError as ended:
            if ended.level < level:
                raise
            if ended.error is error:
                return
            raise ended.error from error

    def _vote(self, what: str, error: BaseException | None = None) -> None:
        if self._lost is not None:
            raise _EndedError(self._level, error or ProbeError(self._lost))
        tag = zlib.crc32(f"{self._level} {what}".encode())
        ballot = torch.tensor([error is not None, tag, -tag])
        most = distributed.ReduceOp.MAX

        def make() -> None:
            distributed.all_reduce(ballot, most, group=self._group)

        self._sent(make)
        failed, highest, lowest = ballot.tolist()
        if failed:
            mine = None if error is None else (self._level, self.index, _portable(error))
            found = self._sent(lambda: self._objects(mine))
            level, rank, shared = min(
                (each for each in found if each is not None),
                key=lambda each: (each[0], not isinstance(each[2], KeyboardInterrupt), each[1]),
            )
            own = error is not None and rank == self.index
            raise _EndedError(level, cast("BaseException", error) if own else shared)
        if highest != -lowest:
            raise _EndedError(
                1,
                ProbeError(
                    f"the processes of the job do not do the same (rank {self.index}: {what}): "
                    f"measure the same network, samples and probes in each, or {DO}"
                ),
            )

    def _objects(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value, group=self._group)
        return found

    def _sent(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except RuntimeError as error:  # distributed.DistError is one
            self._lost = (
                f"rank {self.index} lost the other processes while they measured together "
                f"({first_line(error)[:200]}): look at what ended them, and begin again"
            )
            raise _EndedError(1, ProbeError(self._lost)) from error


def _portable(error: BaseException) -> BaseException:
    """Return an error that another process can raise."""
    try:
        found: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of somebody's raises
        return ProbeError(reason(error))
    return found


def _listed(numbers: list[int]) -> str:
    return " and ".join(filter(None, (", ".join(map(str, numbers[:-1])), str(numbers[-1]))))
