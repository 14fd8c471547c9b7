"""Reading a person's data without a trace: what is drawn and counted meanwhile is put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

_PARTS = ("sampler", "batch_sampler", "dataset", "base_dataloader")
"""Where a loader, or a wrapper of one, keeps what it draws from."""
_PLAIN = (bool, int, float, str, type(None))
MOST_PARTS = 32


@contextmanager
def random_states() -> Iterator[None]:
    """Put the random states of torch, numpy and Python back afterwards."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if begun else []
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python for a while, then put their states back."""
    with random_states():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield


@contextmanager
def as_it_was(data: Any) -> Iterator[None]:
    """Put back what going through a loader changes, so that a training draws as it would have.

    That is the random states of the process, those of generators that the loader, its samplers and
    its data set hold, and what the loader and its samplers count (accelerate's count their epochs,
    by which they shuffle). Data that can be gone through but once are used up all the same.
    """
    undo = [back for part in _parts(data) for back in _ways_back(part)]
    with random_states():
        try:
            yield
        finally:
            for back in undo:
                back()


def _parts(data: Any) -> list[Any]:
    found: list[Any] = []
    waiting = [data]
    while waiting and len(found) < MOST_PARTS:
        part = waiting.pop()
        if not hasattr(part, "__dict__") or any(part is other for other in found):
            continue
        found.append(part)
        waiting += [vars(part)[name] for name in _PARTS if name in vars(part)]
    return found


def _ways_back(part: Any) -> list[Callable[[], object]]:
    found: list[Callable[[], object]] = []
    for value in vars(part).values():
        back = _way_back(value)
        if back is not None:
            found.append(back)
    if isinstance(part, DataLoader | Sampler | BatchSampler):
        counted = {name: value for name, value in vars(part).items() if isinstance(value, _PLAIN)}
        found.append(partial(vars(part).update, counted))
    return found


def _way_back(value: Any) -> Callable[[], object] | None:
    """Return what puts a generator's state back, None of anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return partial(setattr, bits, "state", bits.state)
    return None
