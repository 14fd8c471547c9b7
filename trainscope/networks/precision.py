"""The precision that a network computes in: its weights' own, whatever mode is around the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_KINDS = ("cpu", "cuda")


@contextmanager
def without_autocast() -> Iterator[None]:
    """Turn autocast off for a while, where the caller has it on: it would round all that follows.

    A network that turns it on in its own forward still does.
    """
    with ExitStack() as inside:
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                inside.enter_context(torch.autocast(kind, enabled=False))
        yield
