"""Joining the processes that a launcher started, where nobody has done so yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from trainscope.errors import ProbeError, first_line
from trainscope.probes.processes import ranks

_STORES: list[Any] = []
"""How the processes found each other, and once more for each time that they joined."""


def _join(backend: str, patience: timedelta) -> None:
    """Make the processes of the environment a job; each time as if it were the first."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if not _STORES:
        _STORES.extend(next(iter(rendezvous("env://", timeout=patience))))
    store, rank, count, *times = _STORES
    _STORES.append(None)
    distributed.init_process_group(
        backend,
        store=PrefixStore(f"trainscope {len(times)}", store),
        rank=rank,
        world_size=count,
        timeout=patience,
    )


@contextmanager
def joined() -> Iterator[ranks.Ranks]:
    """Join the processes that torchrun, or accelerate, started with this one, for a block.

    Where the process belongs to a job already, or was started by itself, nothing is done.

    Raises:
        ProbeError: The others do not come.
    """
    count = int(os.environ.get("WORLD_SIZE", "1") or 1)
    found = all(name in os.environ for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    solo = ranks.initialised() or not distributed.is_available() or count < 2 or not found
    if solo or ranks.forced() is not None:
        yield ranks.present()
        return
    here = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if gpu:  # one for each
        torch.cuda.set_device(here)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    try:
        _join(backend, timedelta(seconds=ranks.PATIENCE))
    except RuntimeError as error:
        raise ProbeError(
            f"this is rank {os.environ['RANK']} of {count} processes, and the others did not come "
            f"within {ranks.PATIENCE:g} s ({first_line(error)[:200]}): {ranks.DO}"
        ) from error
    try:
        yield ranks.present()
    finally:
        ranks.forget()
        distributed.destroy_process_group()
