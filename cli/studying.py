"""Doing what of a study is not done yet, with a line on stderr for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainscope.cli.printing import remark

if TYPE_CHECKING:
    from trainscope.studies import Store, Study
    from trainscope.studies.planned import Planned


def work_through(
    study: Study,
    plan: Sequence[Planned],
    *,
    engine: str,
    workers: int | None,
    device: str,
    grace: float | None = None,
    address: str | None = None,
    again: bool = False,
) -> Store:
    """Let the study's store hold a plan, do what is not done yet, and return the store.

    Args:
        study: It.
        plan: Its runs.
        engine: Who does them: one of `engines.ENGINES`.
        workers: How many.
        device: Where to train.
        grace: Seconds of silence after which a worker is taken for dead.
        address: Of a Ray cluster.
        again: Do those anew that failed.
    """
    from trainscope.studies.engines import finish, planned
    from trainscope.studies.store import GRACE
    from trainscope.studies.telling import lines

    store = study.open_store(grace=GRACE if grace is None else grace)
    elsewhere = engine == "ray"
    changed = planned(study, plan, store, again=again, elsewhere=elsewhere, tell=remark)
    left = store.unfinished([study.name])
    many = f"{len(plan)} run{'s' * (len(plan) != 1)}"
    remark(f"{study.name}: {many}, {changed.added} of them new, {left} to do")
    if changed.dropped:
        remark(
            f"{changed.dropped} runs that the study no longer has were not begun, and will not be"
        )
    if changed.left:
        remark(
            f"{changed.left} runs that are done are of the study no longer: its results are "
            "without them, and `trainscope study gc` would remove their folders"
        )
    finish(
        store,
        [study.name],
        engine,
        workers=workers,
        device=device,
        telling=lines(remark),
        address=address,
    )
    return store
