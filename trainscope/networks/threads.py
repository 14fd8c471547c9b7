"""How many threads suit a network: a small one runs faster on one than on all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 10_000_000
"""Multiply-adds of one sample under which the layers are too short to be shared out.

A training step of the digits network (1.6 M, batches of 64) takes 11 ms on one thread and 20 ms on
two of a two-core machine, and far longer where other work keeps the cores busy: threads wait for
one another at the end of every layer.
"""


@contextmanager
def suited_threads(flops: int) -> Iterator[None]:
    """Run on one thread where one sample costs less than `SMALL` multiply-adds.

    The number of torch's threads is put back on leaving.
    """
    before = torch.get_num_threads()
    if flops < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
