"""Learning curves for the estimator, from runs and from settings."""

from __future__ import annotations

import statistics

from trainscope.comparison.groups import Group
from trainscope.convergence import LearningCurve, loss_at_ends
from trainscope.records import EpochRecord, Run

FEWEST_EPOCHS = 4
"""Fewer epochs than this make no curve."""


def run_curve(run: Run) -> LearningCurve | None:
    """Return the learning curve of one run; None with too few accuracies."""
    known = [record for record in run.epochs if record.test_accuracy is not None and record.lr > 0]
    if len(known) < FEWEST_EPOCHS:
        return None
    return LearningCurve(
        epochs=[record.epoch for record in known],
        accuracy=[record.test_accuracy or 0.0 for record in known],
        lr=[record.lr for record in known],
    )


def mean_curve(item: Group, epochs: int | None = None) -> LearningCurve | None:
    """Return the learning curve of a setting, averaged over its seeds; None without accuracies.

    Args:
        item: The setting.
        epochs: Only so many epochs from the start.
    """
    by_epoch: dict[int, list[EpochRecord]] = {}
    for run in item.runs:
        for record in run.epochs:
            if (
                record.test_accuracy is not None
                and record.lr > 0
                and (epochs is None or record.epoch <= epochs)
            ):
                by_epoch.setdefault(record.epoch, []).append(record)
    whole = max(map(len, by_epoch.values()), default=0)
    kept = {epoch: held for epoch, held in sorted(by_epoch.items()) if len(held) == whole}
    if len(kept) < FEWEST_EPOCHS:
        return None
    losses = [[record.train_loss for record in held] for held in kept.values()]
    known = all(loss is not None for held in losses for loss in held)
    return LearningCurve(
        epochs=list(kept),
        accuracy=[statistics.fmean(r.test_accuracy or 0.0 for r in held) for held in kept.values()],
        lr=[held[0].lr for held in kept.values()],
        loss=loss_at_ends(
            [statistics.fmean(x or 0.0 for x in held) for held in losses],
            [held[0].lr for held in kept.values()],
        )
        if known
        else None,
        momentum=item.first.number("momentum"),
    )
