"""Engines: who does the runs of a study. All of them start workers on one store, and wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainscope.errors import StudyError
from trainscope.studies.named import name_of, read_toml
from trainscope.studies.on_ray import on_ray
from trainscope.studies.orders import Order
from trainscope.studies.store import GRACE, Store
from trainscope.studies.working import Listeners, work

if TYPE_CHECKING:
    from trainscope.studies.planned import Planned
    from trainscope.studies.queues import Changed
    from trainscope.studies.study import Study

ENGINES = ("serial", "processes", "ray")
LOOK = 0.2
"""Seconds between two looks at the workers."""
FRUITLESS = 10
"""Workers that die one after the other, with no run finished between them, end an engine."""


def run(
    study: Study,
    engine: str = "serial",
    *,
    workers: int | None = None,
    device: str = "cpu",
    telling: Listeners | None = None,
    again: bool = False,
    grace: float = GRACE,
    address: str | None = None,
    packages: Sequence[str] = (),
) -> Store:
    """Plan a study in its store, do what is not done yet, and return the store.

    A driver that was killed is resumed by the same call; several at once share the work.

    Args:
        study: It.
        engine: One of `ENGINES`.
        workers: How many, for "processes" and "ray".
        device: Where to train.
        telling: Who is told of the runs; of those in other processes they tell stderr themselves.
        again: Do those anew that failed.
        grace: Seconds of silence after which a worker is taken for dead.
        address: Of a Ray cluster; by default one is started here.
        packages: Folders that workers of Ray search for imports too.

    Raises:
        StudyError: There is no such engine, or its workers die before they have done anything.
    """
    if engine not in ENGINES:
        raise StudyError(f"no engine is named '{engine}': choose {', '.join(ENGINES)}")
    store = study.open_store(grace=grace)
    planned(study, study.plan(), store, again=again, elsewhere=engine == "ray")
    finish(
        store,
        [study.name],
        engine,
        workers=workers,
        device=device,
        telling=telling,
        address=address,
        packages=packages,
    )
    return store


def planned(
    study: Study,
    plan: Sequence[Planned],
    store: Store,
    *,
    again: bool = False,
    elsewhere: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Changed:
    """Let a store hold the plan of a study, once what its runs would find was tried.

    Args:
        study: It.
        plan: Its runs.
        store: Its store.
        again: Queue those anew that failed.
        elsewhere: The runs are done on machines that may have data which this one has not: nothing
            is tried.
        tell: Told of what is tried.

    Raises:
        StudyError: As `Study.rehearse`.
    """
    _check_alone(study, store)
    if not elsewhere:
        study.rehearse(plan, store, tell)
    before = store.done(study.name)
    changed = store.plan(study.name, plan, better=study.better, again=again)
    if study.at.file is not None:
        store.keep_origin(study.name, Path(study.at.file))
    left = before - {each.digest for each in plan}
    return replace(changed, left=len(left))


def _check_alone(study: Study, store: Store) -> None:
    """Refuse a study of whose name the store holds that of another file, which is still there.

    Raises:
        StudyError: It does.
    """
    other = None if study.at.file is None else store.origin(study.name)
    if other is None or other == Path(study.at.file or "").absolute() or not other.is_file():
        return
    with suppress(StudyError):
        if name_of(read_toml(other)[1], other) != study.name:
            return
    with study.at(("name",)):
        raise StudyError(
            f"the store holds the study '{study.name}' of {other} already: give one of the two "
            "another name, or another store"
        )


def finish(
    store: Store,
    names: Sequence[str] | None,
    engine: str,
    *,
    workers: int | None = None,
    device: str = "cpu",
    telling: Listeners | None = None,
    address: str | None = None,
    packages: Sequence[str] = (),
) -> None:
    """Do what waits in a store, as `run`."""
    if engine == "serial":
        work(store, names, device=device, telling=telling)
        return
    count = workers or (2 if engine == "processes" else 1)
    if count < 1:
        raise StudyError(f"{count} workers do nothing: give 1 or more")
    order = Order(
        place=store.location,
        folder=store.given_folder,
        names=None if names is None else tuple(names),
        grace=store.grace,
        device=device,
        threads=shared_threads(count),
    )
    if engine == "processes":
        processes(store, order, count)
    else:
        on_ray(store, order, count, address=address, packages=packages)


def shared_threads(workers: int) -> int | None:
    """Return the threads of each of several workers; None where the environment says them."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // workers)


def processes(store: Store, order: Order, count: int) -> None:
    """Run workers as processes of this machine, others in the place of those that die.

    Raises:
        StudyError: They die one after the other, and nothing gets done.
        KeyboardInterrupt: Ctrl-C; the workers are ended first, and their runs wait again.
    """
    told = replace(order, parent=os.getpid())
    alive = [_started(told) for _ in range(count)]
    dead, left = 0, store.unfinished(order.names)
    try:
        while alive:
            time.sleep(LOOK)
            for process in list(alive):
                code = process.poll()
                if code is None:
                    continue
                alive.remove(process)
                if code == 0:
                    continue
                now = store.unfinished(order.names)
                dead, left = (1, now) if now < left else (dead + 1, left)
                if dead >= FRUITLESS:
                    raise StudyError(
                        f"{dead} workers ended one after the other (the last with exit code "
                        f"{code}) and no run was finished: see what they wrote to stderr"
                    )
                if now:
                    alive.append(_started(told))
    finally:
        for process in alive:
            process.terminate()
        for process in alive:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)


def _started(order: Order) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if order.threads is not None:
        environment["OMP_NUM_THREADS"] = str(order.threads)
    command = [sys.executable, "-m", "trainscope.studies.worker", order.written()]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
