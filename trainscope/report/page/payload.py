"""What the page's script draws, as one JSON object: rounded, and no larger than it must be."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.comparison import Comparison
from trainscope.comparison.findings import families_of
from trainscope.comparison.settings import Setting
from trainscope.records import Json, Run
from trainscope.report.page.markup import rounded
from trainscope.report.page.plots import plots
from trainscope.report.series import lr_drops, lr_times

MOST_EPOCHS = 400
"""Longer curves are thinned to so many epochs, LR drops and the last one kept."""
FIRST_SHOWN = 8
"""With more settings than this, the others are hidden until a reader shows them."""
ENOUGH_SHOWN = 4
EARLY = "decayed too early"


def payload(comparison: Comparison) -> Json:
    """Return settings, runs and plots for the page's script.

    Args:
        comparison: What the page shows.
    """
    early = {trap.label: trap.epoch for trap in comparison.traps if trap.name == EARLY}
    runs: list[Json] = []
    settings: list[Json] = []
    for item in comparison.groups:
        places = list(range(len(runs), len(runs) + len(item.runs)))
        runs += [_run(run) for run in item.runs]
        settings.append(
            {
                "label": item.label,
                "short": _short(item.label),
                "runs": places,
                "early": early.get(item.label),
            }
        )
    return {
        "settings": settings,
        "runs": runs,
        "first": comparison.ta_epochs,
        "on": _shown_first(comparison.groups),
        "plots": plots(comparison),
    }


def _shown_first(groups: Sequence[Setting]) -> list[int]:
    """Return the settings shown before a reader chooses: those that the first findings are about.

    All of a few; else the first pruned network's, and others up to `FIRST_SHOWN` if it has few.
    """
    if len(groups) <= FIRST_SHOWN:
        return list(range(len(groups)))
    families = families_of(groups)
    told = list(families[0]) if families and len(families[0]) >= ENOUGH_SHOWN else []
    if not told:
        ordered = [*(item for family in families for item in family), *groups]
        told = list({item.label: item for item in ordered}.values())
    first = {item.label for item in told[:FIRST_SHOWN]}
    return [k for k, item in enumerate(groups) if item.label in first]


def _short(label: str) -> str:
    return label.removeprefix("LR ")


def _run(run: Run) -> Json:
    kept = _kept(run)
    records = [run.epochs[k] for k in kept]
    times = lr_times(run)
    losses = [rounded(record.train_loss) for record in records]
    return {
        "seed": run.seed,
        "a0": rounded(run.start_metric),
        "e": [record.epoch for record in records],
        "t": [rounded(times[k]) for k in kept],
        "a": [rounded(record.test_metric) for record in records],
        "l": losses if any(loss is not None for loss in losses) else None,
        "d": [run.epochs[k].epoch for k in lr_drops([record.lr for record in run.epochs])],
    }


def _kept(run: Run) -> list[int]:
    count = len(run.epochs)
    if count <= MOST_EPOCHS:
        return list(range(count))
    step = count / MOST_EPOCHS
    kept = {int(k * step) for k in range(MOST_EPOCHS)} | {count - 1}
    kept |= {k for k in range(count - 1) if run.epochs[k + 1].lr < run.epochs[k].lr}
    return sorted(kept)
