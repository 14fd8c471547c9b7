"""The loop of a worker: claim a run, do it, keep what came out, until nothing is left."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainscope.errors import TrainscopeError
from trainscope.records import EpochRecord, Run, RunStatus
from trainscope.studies.executing import execute
from trainscope.studies.rows import row_of
from trainscope.studies.store import Claimed, Store
from trainscope.training.runner import Watch

PAUSE = 0.5
"""Seconds between two looks at a store in which others are at work."""
LOOK = 5.0
"""Seconds at most between two looks for workers that died."""


@dataclass(frozen=True)
class Listeners:
    """Who is told of what a worker does.

    Attributes:
        begun: Of a run that was claimed.
        epoch: Of each of its epochs.
        done: Of how it ended: the Run, or a sentence.
    """

    begun: Callable[[Claimed], None] = lambda _: None
    epoch: Callable[[Claimed, EpochRecord], None] = lambda *_: None
    done: Callable[[Claimed, Run | str], None] = lambda *_: None


def work(
    store: Store,
    names: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    telling: Listeners | None = None,
    parent: int | None = None,
) -> int:
    """Do runs until none waits and none is under way, and return how many were done here.

    A worker waits for what others are at work on: were one of them to die, it takes its run up.

    Args:
        store: Where the runs wait.
        names: Of the studies to work on; by default all.
        device: Where to train.
        telling: Who is told.
        parent: The process that started this one; where that is gone, the worker leaves.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run that it came in waits for another worker.
    """
    done, looked = 0, 0.0
    while parent is None or os.getppid() == parent:
        if time.monotonic() - looked > min(LOOK, store.grace / 4):
            store.revive(names)
            looked = time.monotonic()
        claimed = store.claim(names)
        if claimed is not None:
            do(store, claimed, device=device, telling=telling or Listeners())
            done += 1
        elif store.unfinished(names):
            time.sleep(PAUSE)
        else:
            break
    return done


def do(store: Store, claimed: Claimed, *, device: str, telling: Listeners) -> None:
    """Do one run; what it raises is kept as the reason why it failed.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run waits again.
    """
    telling.begun(claimed)
    searched = claimed.searched
    watch = Watch(
        on_epoch=lambda record: telling.epoch(claimed, record),
        on_state=None if searched is None else searched.look,
    )
    try:
        with store.kept_alive(claimed):
            run = execute(claimed.spec, claimed.folder, device=device, watch=watch)
            stopped = searched is not None and searched.stopped is not None
            if run.status is RunStatus.INTERRUPTED and not stopped:
                raise KeyboardInterrupt
            row = row_of(claimed.spec, run, claimed.folder)
            if searched is not None:
                row = searched.row(row)
    except KeyboardInterrupt:
        store.release(claimed)
        raise
    except Exception as error:  # what one run raises must not end the others
        why = str(error) if isinstance(error, TrainscopeError) else _bug(error)
        store.fail(claimed, why)
        telling.done(claimed, why)
        return
    store.finish(claimed, row)
    telling.done(claimed, run)


def _bug(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {last.name}, {last.filename}:{last.lineno})"
