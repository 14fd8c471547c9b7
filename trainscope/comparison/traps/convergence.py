"""Decayed too early, and not converged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from trainscope.comparison.curves import run_curve
from trainscope.comparison.facts import last_epoch
from trainscope.comparison.grounds import share
from trainscope.comparison.settings import Setting
from trainscope.comparison.traps.trap import Severity, Trap
from trainscope.convergence import decayed_too_early as early_decay
from trainscope.records import Metric, Run
from trainscope.records.text import count_of

SHORTEST = 4
"""Epochs that a slope is read from, at least."""
GAIN = 0.3
"""Points that as many epochs again would have to add before a rise counts."""
SURE = 2.0
"""Standard errors that a slope must be above 0."""
LOSS_RATIO, LOSS_GAP = 3.0, 0.05
"""A training loss this many times, and by as much, above another LR's is not converged."""


def decayed_too_early(item: Setting) -> Trap | None:
    """Find a metric that still improved when the LR first dropped: Wang et al. (2023), Fig. 2."""
    curves = [run_curve(run) for run in item.runs]
    checked = [early for curve in curves if curve is not None and (early := early_decay(curve))]
    found = sorted((early for early in checked if early.too_early), key=lambda early: early.slope)
    if len(found) * 2 <= len(item.runs):
        return None
    early, metric = found[len(found) // 2], item.metric
    return Trap(
        "decayed too early",
        item.label,
        f"The {metric.name} was still {'rising' if metric.sign > 0 else 'falling'} by "
        f"{_rate(metric, early.slope, early.stderr)} when the LR dropped at epoch "
        f"{early.epoch:.0f}; a first LR stage twice as long may "
        f"{'add' if metric.sign > 0 else 'take off'} up to {metric.change(early.per_doubling, 1)}.",
        {"slope": early.slope, "stderr": early.stderr, "per_doubling": early.per_doubling},
        runs=(len(found), len(item.runs)),
        epoch=round(early.epoch),
    )


def not_converged(item: Setting, others: Sequence[Setting]) -> Trap | None:
    """Find a metric that still improves at the end, or a training loss that others left behind."""
    found = [
        (*rise, run.epochs[-1].epoch)
        for run in item.runs
        if len(run.epochs) > 2 * SHORTEST and (rise := _rise(_last_stage(run), run.metric))
    ]
    metric = item.metric
    if found and len(found) * 2 > len(item.runs):
        rate, error, window, last = _middle(found)
        return Trap(
            "not converged",
            item.label,
            f"The {metric.name} still {'rises' if metric.sign > 0 else 'falls'} by "
            f"{_rate(metric, rate, error)} over the last {window:.0f} epochs: the final "
            f"{metric.name} is not what this setting can reach.",
            {"slope": rate, "stderr": error, "epochs": window},
            runs=(len(found), len(item.runs)),
            epoch=int(last),
        )
    return _loss_left(item, others)


def not_finished(item: Setting, groups: Sequence[Setting]) -> Trap | None:
    """Find runs that were interrupted or diverged, and say what of their setting is left."""
    if item.finished:
        return None
    kept = [other for other in groups if other.finished and other.setting == item.setting]
    total = sum(len(other.runs) for other in groups if other.setting == item.setting)
    ends = sorted({done for run in item.runs if (done := last_epoch(run)) is not None})
    after = " and ".join(map(str, ends)) or "an unknown number of"
    until = f"of {count_of(item.first.total, 'epoch')}" if item.first.total else "epochs"
    what = (
        f"it is not in the mean of {kept[0].label}, which is over the {len(kept[0].runs)} that "
        "finished"
        if kept
        else f"the final {item.metric.name} is that of the last epoch, not of the schedule"
    )
    return Trap(
        str(item.first.status),
        item.label,
        f"{len(item.runs)} of {count_of(total, 'run')} {item.fate} after {after} {until}: {what}.",
        runs=(len(item.runs), total),
    )


def _loss_left(item: Setting, others: Sequence[Setting]) -> Trap | None:
    found = []
    for other in others:
        ground = share([item, other])
        if ground is not None:
            own, theirs = (_final_loss(held) for held in ground.groups)
            if own is not None and theirs is not None:
                larger = (other.lr or 0.0) > (item.lr or 0.0)
                why = "the small LR" if larger else "its schedule"
                found.append((theirs, own, other.label, ground.where, why))
    best = min(found, default=None)
    if best is None or best[1] < LOSS_RATIO * best[0] or best[1] - best[0] < LOSS_GAP:
        return None
    lowest, own, label, where, why = best
    unit = f" {item.metric.loss_unit}".rstrip()
    return Trap(
        "not converged",
        item.label,
        f"It ends at a training loss of {own:.3g}{unit} where {label} came to {lowest:.3g} "
        f"{where}: its flat end is {why}, not convergence.",
        {"train_loss": own, "lowest": lowest},
    )


def _final_loss(item: Setting) -> float | None:
    found = [run.epochs[-1].train_loss for run in item.runs if run.epochs]
    known = [loss for loss in found if loss is not None]
    return statistics.fmean(known) if known else None


def _last_stage(run: Run) -> list[float | None]:
    """Return the values under the last LR, of the last quarter at most: decays lift too."""
    last = run.epochs[-1].lr
    kept = [r.test_metric for r in run.epochs if r.lr <= last]
    return kept[-max(SHORTEST, len(run.epochs) // 4) :]


def _rate(metric: Metric, rate: float, error: float) -> str:
    """Return "0.52 ± 0.03 points an epoch"."""
    value, *unit = metric.change(rate).split(" ", 1)
    return " ".join([value, "±", metric.change(error).split(" ")[0], *unit, "an epoch"])


def _rise(values: Sequence[float | None], metric: Metric) -> tuple[float, float, int] | None:
    """Return improvement, error and epochs of a stretch that clearly gets better, or None."""
    known = [metric.sign * value for value in values if value is not None]
    if len(known) < max(SHORTEST, len(values)):
        return None
    rate, error = slope(known)
    sure = rate > SURE * error and metric.points(rate * len(known), known[-1]) >= GAIN
    return (rate, error, len(known)) if sure else None


def _middle(found: Sequence[tuple[float, float, int, int]]) -> tuple[float, ...]:
    """Return the run whose slope is the middle one."""
    return sorted(found)[len(found) // 2]


def best_epoch(item: Setting) -> Trap | None:
    """Find results that are, or could be, the best epoch's: selected on the test set."""
    told = [run for run in item.runs if run.settings.get("reported") == "best"]
    if told:
        return Trap(
            "test-set selection",
            item.label,
            f"The {item.metric.name} reported is that of the best epoch, chosen on the test set: "
            f"the last epoch's is {'lower' if item.metric.sign > 0 else 'higher'} or the same.",
            runs=(len(told), len(item.runs)),
        )
    gaps = [gap for run in item.runs if (gap := _best_over_last(run)) is not None]
    gap = statistics.fmean(gaps) if gaps else 0.0
    metric = item.metric
    if not gaps or metric.points(gap, item.mean or 0.0) < GAIN:
        return None
    return Trap(
        "test-set selection",
        item.label,
        f"The best epoch is {metric.gap(gap)} {metric.ahead} the last one on average: quoting it "
        "would be selection on the test set; the last epoch is used here.",
        {"gain": gap},
        Severity.NOTE,
        (
            sum(metric.points(value, item.mean or 0.0) >= GAIN for value in gaps),
            len(item.runs),
        ),
    )


def _best_over_last(run: Run) -> float | None:
    sign = run.metric.sign
    known = [sign * r.test_metric for r in run.epochs if r.test_metric is not None]
    return max(known) - known[-1] if known else None


def slope(values: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope per step and its standard error.

    Args:
        values: Three or more, at equal steps.

    Raises:
        ValueError: There are fewer than three.
    """
    count = len(values)
    if count < 3:
        raise ValueError(f"a slope with an error needs three values, not {count}")
    middle, mean = (count - 1) / 2, math.fsum(values) / count
    spread = count * (count**2 - 1) / 12
    rise = math.fsum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread
    rest = math.fsum((v - mean - rise * (i - middle)) ** 2 for i, v in enumerate(values))
    return rise, math.sqrt(rest / (count - 2) / spread)
