"""Workers on a Ray cluster: each is a task that works on the store until nothing is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainscope.errors import StudyError
from trainscope.foreign import reason
from trainscope.studies.orders import Order, obey, ordered

if TYPE_CHECKING:
    from trainscope.studies.store import Store


def on_ray(
    store: Store,
    order: Order,
    count: int,
    *,
    address: str | None = None,
    packages: Sequence[str] = (),
) -> None:
    """Run workers as tasks of Ray.

    The store and the folder of the runs must be seen by all nodes, at the same paths. A node that
    is lost takes its workers with it: Ray starts them again elsewhere, and they take up the runs.

    Args:
        store: Where the runs wait.
        order: What each worker is told.
        count: How many workers; each has one CPU, or one GPU where the device is one.
        address: Of a cluster; by default Ray is started here.
        packages: Folders that workers search for imports too.

    Raises:
        StudyError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError(
            "the engine ray needs Ray, which is not installed: pip install 'trainscope-pruning"
            "[ray]', or take --workers N"
        ) from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(
                address=address,
                log_to_driver=True,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": _search_path(packages)}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise StudyError(f"no Ray cluster is at {address}: {reason(error)}") from error
    try:
        _work(ray, order, count)
    finally:
        if started:
            ray.shutdown()
    left = store.unfinished(order.names)
    if left:
        raise StudyError(f"the workers on Ray ended and left {left} runs: run the study again")


def _work(ray: Any, order: Order, count: int) -> None:
    gpus = 0 if order.device == "cpu" else 1
    task = ray.remote(max_retries=-1, num_cpus=1, num_gpus=gpus)(_obey)
    ray.get([task.remote(order.written()) for _ in range(count)])


def _obey(text: str) -> int:
    """Obey an order in a process of Ray's."""
    import sys

    from trainscope.studies.telling import lines

    return obey(
        ordered(text),
        lines(lambda line: print(line, file=sys.stderr, flush=True)),  # noqa: T201
    )


def _search_path(packages: Sequence[str]) -> str:
    """Return where workers look for imports: as this process does, and in some folders more."""
    own = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([*map(str, packages), *([own] if own else [])])
