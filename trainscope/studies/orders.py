"""What a driver orders its workers in other processes to do, as JSON on the way there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from trainscope.studies.store import Store
from trainscope.studies.working import Listeners, work


@dataclass(frozen=True)
class Order:
    """What a worker in another process is told.

    Attributes:
        place: Of the store.
        folder: Of the runs, where the store was given one.
        names: Of the studies to work on; None for all.
        grace: Of the store.
        device: Where to train.
        threads: Of each worker; None leaves them.
        parent: The process that must live.
    """

    place: str
    folder: str | None
    names: tuple[str, ...] | None
    grace: float
    device: str = "cpu"
    threads: int | None = None
    parent: int | None = None

    def store(self) -> Store:
        """Open the store."""
        return Store(self.place, self.folder, make=False, grace=self.grace)

    def written(self) -> str:
        """Return it as JSON, which `ordered` reads."""
        return json.dumps(asdict(self))


def ordered(text: str) -> Order:
    """Return the order that another process wrote."""
    raw: dict[str, Any] = json.loads(text)
    names = raw["names"]
    return Order(**{**raw, "names": None if names is None else tuple(names)})


def obey(order: Order, telling: Listeners | None = None) -> int:
    """Work as a worker that was ordered so, and return the runs done."""
    if order.threads is not None:
        import torch

        torch.set_num_threads(order.threads)
    store = order.store()
    return work(store, order.names, device=order.device, telling=telling, parent=order.parent)
