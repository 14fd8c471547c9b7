"""Which of the LRs that were tried are too large: by the stability limit, and by what was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from trainscope.probes.retrained.scores import NOT_FINITE
from trainscope.records import Measurement, Status
from trainscope.records.numbers import estimate, number
from trainscope.records.retrained import Retrained, beyond_noise, retrained
from trainscope.records.stability import StableLR, stable_lr
from trainscope.training.schedule import write_lr

BEHIND_POINTS = 1.0
"""An LR that ends less than so many points (or two standard errors) behind a smaller one is not."""
WORSE_POINTS = 3.0
"""An LR that ends so many points worse than where it started from does harm."""


@dataclass(frozen=True)
class Harm:
    """An LR under which retraining went wrong.

    Attributes:
        lr: It.
        seen: What was seen, as a clause.
    """

    lr: float
    seen: str


def settings_of(*measured: Measurement | None) -> Mapping[str, Any]:
    """Return the optimizer's settings that the first of some measurements states; {} for none."""
    for each in measured:
        found = {} if each is None else retrained(each).settings
        if found:
            return found
    return {}


def stability(
    curvature: Measurement | None,
    tried: Measurement | None,
    before: Measurement | None = None,
    *,
    after: str = "",
) -> Iterator[str]:
    """Say the largest stable LR of the optimizer that retrains, and which LRs are above it.

    Args:
        curvature: Of the network that is retrained.
        tried: Its trainability accuracy.
        before: The curvature before the action, where there was one.
        after: What to call the state of the network, where there was an action.
    """
    if curvature is None:
        return
    settings = settings_of(tried, curvature)
    limit = stable_lr(curvature, settings)
    plain = curvature.get("max_stable_lr")
    if limit.value is None:
        if limit.missing and plain is not None:
            yield (
                f"2/λmax, {number(plain)}, is the largest stable LR of plain gradient descent and "
                f"not of {limit.whose}, for which it is not known: {limit.missing}."
            )
        return
    old = None if before is None else stable_lr(before, settings)
    whose = "" if limit.rule == "2/λmax" and after else f" of {limit.whose}"
    line = f"Largest stable LR{whose} ({limit.rule}): {_written(limit)}"
    if old is not None:
        was = "not known" if old.value is None else _written(old)
        line += f" {after}; {was} before"
    line += "."
    found = None if tried is None else retrained(tried)
    harmed = {each.lr for each in harms(tried)}
    above = [] if found is None else [lr for lr in found.lrs if limit.below(lr)]
    gentle = [lr for lr in above if lr not in harmed]
    if gentle and tried is not None:
        several = len(gentle) > 1
        line += f" {_listed(gentle)} {'are' if several else 'is'} above it and may overshoot"
        line += " at first"
        if tried.status is Status.OK:
            line += f"; {'they' if several else 'it'} did not diverge here"
        line += "."
    yield line


def too_large(curvature: Measurement | None, tried: Measurement | None) -> Iterator[str]:
    """Say of each LR under which retraining went wrong that it is too large, and what was seen.

    Args:
        curvature: Of the network that was retrained.
        tried: Its trainability accuracy.
    """
    settings = settings_of(tried, curvature)
    limit = None if curvature is None else stable_lr(curvature, settings)
    for harm in harms(tried):
        line = f"LR {harm.lr:g} is too large"
        if limit is not None and limit.value is not None:
            ceiling = f"the largest stable LR {_written(limit)}"
            where = f": it is above {ceiling}, and "
            if not limit.below(harm.lr):
                where = f", though it is not above {ceiling}: "
            yield f"{line} for {limit.whose}{where}{harm.seen}. Use a smaller LR, or warm up."
        else:
            yield f"{line}: {harm.seen}. Use a smaller LR, or warm up."


def harms(tried: Measurement | None) -> list[Harm]:
    """Return the LRs under which retraining diverged, did harm or fell behind a smaller LR."""
    if tried is None:
        return []
    told = retrained(tried)
    rows = list(zip(told.lrs, told.curves, told.losses, strict=False))
    sound = {lr: curve for lr, curve, losses in rows if curve and None not in (*curve, *losses)}
    found = []
    for lr, _, losses in rows:
        if lr not in sound:  # by the LR, where the network was sound before the first step
            seen = None if tried.reason == NOT_FINITE else _divergence(told, losses)
        else:
            seen = _damage(told, lr, sound, partial(_beyond_noise, tried))
        if seen is not None:
            found.append(Harm(lr, seen))
    return found


def _divergence(told: Retrained, losses: list[float | None]) -> str | None:
    if None not in losses:
        return None
    place = losses.index(None) + 1
    if told.steps is None:
        return f"retraining diverged in epoch {place}"
    return f"retraining diverged within {place * told.steps} steps"


def _damage(
    told: Retrained,
    lr: float,
    sound: Mapping[float, list[float]],
    sure: Callable[[float, float, float, float | None], bool],
) -> str | None:
    """Return in words how an LR did harm: against the start, and against smaller LRs.

    Args:
        told: The retrainings.
        lr: The LR.
        sound: The curve of each LR that did not diverge.
        sure: Tells whether a gap from a value, of an LR to another (None: to the start), is beyond
            its noise.
    """
    metric, start, curve = told.metric, told.start, sound[lr]
    end, mean = curve[-1], sum(curve) / len(curve)

    def short(value: float, of: float, least: float, other: float | None = None) -> bool:
        gap = metric.points(metric.sign * (of - value), of)
        return gap > least and sure(gap, of, lr, other)

    worse = start is not None and short(end, start, WORSE_POINTS)
    # A last test that is behind by chance does not put the mean behind too.
    ahead = {
        smaller: other[-1]
        for smaller, other in sound.items()
        if smaller < lr
        and short(end, other[-1], BEHIND_POINTS, smaller)
        and short(mean, sum(other) / len(other), BEHIND_POINTS, smaller)
    }
    if not worse and not ahead:
        return None
    parts = []
    if worse and start is not None:
        parts.append(f"worse than the {metric.written(start)} it started from")
    if ahead:
        best = metric.best(ahead.values())
        which = next(smaller for smaller, value in ahead.items() if value == best)
        parts.append(f"behind the {metric.written(ahead[which])} of LR {which:g}")
    span = told.span.partition(",")[0]
    after = "1 epoch" if span == "epoch" else span
    return f"the test {metric.name} after {after} is {metric.written(end)}, {' and '.join(parts)}"


def _beyond_noise(
    tried: Measurement, gap: float, of: float, lr: float, other: float | None
) -> bool:
    """Tell whether a gap of two LRs' values, or of one and the start, is beyond its noise.

    Without the parts of the test half, the errors of the two are taken as independent of each
    other, and that of the start as none.
    """
    told = retrained(tried)
    row = 0 if other is None else 1 + told.lrs.index(other)
    paired = beyond_noise(gap, of, told, 1 + told.lrs.index(lr), told, row)
    if paired is not None:
        return paired
    errors = []
    for each in (lr, other):
        if each is None:
            continue
        curve = told.curves[told.lrs.index(each)]
        scalar = tried.scalars.get(f"ta@{write_lr(each)}") or tried.scalars.get("ta")
        error = None if scalar is None else scalar.stderr
        errors.append(told.metric.points(error or 0.0, sum(curve) / len(curve)))
    return gap > 2 * math.hypot(*errors)


def _written(limit: StableLR) -> str:
    assert limit.value is not None
    return estimate(limit.value, limit.error) if limit.error else number(limit.value)


def _listed(lrs: list[float]) -> str:
    return f"LR {' and LR '.join(f'{lr:g}' for lr in lrs)}"
