"""How many more epochs the smaller retraining LRs need, from a trainability accuracy at several."""

from __future__ import annotations

from trainscope.convergence import LearningCurve, estimate_extra_epochs, loss_at_ends
from trainscope.records import Columns, Json, Measurement
from trainscope.records.retrained import retrained

LEVEL = 0.8
SETTLED = 3
"""The target is the mean test accuracy of so many last epochs of the best LR."""


def outlook(columns: Columns) -> tuple[Json, ...]:
    """Estimate, for each LR that is behind a larger one, the epochs to add to catch up with it.

    The target is where the best LR stands at the end of the epochs watched, so the answer is about
    getting there, not about the best accuracy that either would reach.

    Args:
        columns: A trainability accuracy; its pruned network's curves are used.

    Returns:
        For each smaller LR: `lr`, `reference_lr`, `epochs` watched (steps, where `per` says so) and
        what `trainscope.convergence.Estimate.to_json` gives. Empty where there is one LR alone.
    """
    curves = {} if columns.after is None else _curves(columns.after)
    if len(curves) < 2:
        return ()
    ends = {lr: _end(curve) for lr, curve in curves.items()}
    metric = next(iter(curves.values())).metric
    best = max(ends, key=lambda lr: metric.sign * ends[lr])
    return tuple(
        {"lr": lr, "reference_lr": best, "epochs": int(curve.epochs[-1])}
        | estimate_extra_epochs(
            curve, target=ends[best], reference=curves[best], level=LEVEL
        ).to_json()
        for lr, curve in curves.items()
        if lr < best
    )


def _curves(measurement: Measurement) -> dict[float, LearningCurve]:
    told, found = retrained(measurement), {}
    step = told.steps or 1
    for lr, values, losses in zip(told.lrs, told.curves, told.losses, strict=False):
        if None in losses:  # it diverged
            continue
        found[lr] = LearningCurve(
            epochs=[step * k for k in range(len(values) + 1)],
            accuracy=[told.start, *values],
            lr=lr,
            loss=[None, *loss_at_ends(losses, [lr] * len(losses))],
            metric=told.metric,
            per="epoch" if told.steps is None else "step",
        )
    return found


def _end(curve: LearningCurve) -> float:
    after = curve.accuracy[curve.epochs > 0]  # epoch 0 is before the first step
    return float(after[-SETTLED:].mean())
