"""What workers say of their runs, a line each."""

from __future__ import annotations

from collections.abc import Callable

from trainscope.records import Run
from trainscope.records.text import plain
from trainscope.studies.rows import columns_of
from trainscope.studies.spec import RunSpec
from trainscope.studies.store import Claimed
from trainscope.studies.working import Listeners


def lines(say: Callable[[str], None]) -> Listeners:
    """Return what tells each run that ended, in a line."""

    def done(claimed: Claimed, run: Run | str) -> None:
        what = f"{claimed.spec.key}  {short(claimed.spec)}"
        if isinstance(run, str):
            say(plain(f"{what}: failed: {run}"))
            return
        final = run.final_metric
        value = "no metric" if final is None else run.metric.called(final, 2)
        ended = str(run.status)
        if claimed.searched is not None and claimed.searched.stopped is not None:
            ended = f"stopped after epoch {claimed.searched.stopped} of {run.total}"
        say(plain(f"{what}: {ended}, {value}"))

    return Listeners(done=done)


LONGEST = 60
"""Characters of the filters that stay, above which only their number is told."""


def short(spec: RunSpec, called: str = "") -> str:
    """Return a spec in a few words.

    Args:
        spec: It.
        called: What its study calls the action, told where it keeps more filters than a line holds.
    """
    row = columns_of(spec)
    parts = [spec.recipe]
    if spec.action is not None:
        asked = row["action.ratio"] or row["action.ratios"] or ""
        words = f"{row['action.structure']} {row['action.criterion']} {asked}".strip()
        kept = spec.action.kept.items()
        stay = [f"{layer} keeps {','.join(map(str, places))}" for layer, places in kept]
        if len(", ".join(stay)) > LONGEST:
            count = sum(len(places) for _, places in kept)
            stay = [called] * bool(called) + [f"{count} filters of {len(kept)} layers stay"]
        parts += stay or [words]
    if spec.plan is not None:
        parts.append(str(spec.plan))
    if spec.weights != "inherited":
        parts.append(spec.weights)
    return f"{', '.join(parts)}, seed {spec.seed}"
