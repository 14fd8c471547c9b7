"""How likely a curve that is watched alone comes to a level at all: does it level off below?

The damped trends of `extrapolation` say when a level comes; which of them holds is for a prior to
say there, as a single fit calls reachable targets unreachable. That prior knows no curve that
levels off for good, so that beside it those are weighed that do: power laws of any damping, and
exponential laws in time, each by how well it fits the last stretch of the curve. The share of the
weight that gets to a level within the horizon is one of three things that the probability goes
with; the others are the scatter, by which a running maximum rises on, and the level's share of all
that the curve lacks. How they go together was fitted on curves that were drawn and on runs whose
end is known (`Reach`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.extrapolation import (
    FEWEST,
    NOTHING,
    PRIOR,
    by_luck,
    has_risen,
    loss_slope,
)
from trainscope.convergence.passage import WINDOW, Floats, noise, running_maximum
from trainscope.convergence.stage import FirstStage

HORIZON = 100.0
"""Times the time watched, beyond which nothing is told apart: never, as far as anyone can say."""
DAMPING = np.linspace(-2.0, 8.0, 51)
RATES = np.geomspace(0.1, 12.0, 25)
"""Of the exponential laws, per time watched."""
MOST = 1e-3
"""The least of a probability or a share whose logarithm is taken."""


@dataclass(frozen=True)
class Laws:
    """What is believed of the laws before a curve is seen. Pure numbers.

    Attributes:
        exponential: The weight of all exponential laws; the power laws have the rest.
        damping: Centre of the narrow half of the prior on the power laws' damping, where the loss
            stands still.
        width: Its standard deviation.
        anywhere: Centre of the wide half, whatever the loss does.
        wide: Its standard deviation.
        evidence: Weight of each record.
        misfit: Standard deviation of a law's own error, as a share of the accuracy.
        luck: Standard errors of the centred mean by which a running maximum is ahead of the law.
    """

    exponential: float = 0.7
    damping: float = 0.4
    width: float = 0.25
    anywhere: float = 0.5
    wide: float = 1.0
    evidence: float = 1.0
    misfit: float = 0.0036
    luck: float = 0.8


LAWS = Laws()


@dataclass(frozen=True)
class Chances:
    """What the probability that a level is reached goes with, [M] each.

    Attributes:
        weight: Share of the laws' weight that gets there within `HORIZON`, 0 to 1; a half for a
            curve that has not risen yet, of which nothing is seen.
        luck: How far the scatter alone may carry the curve there, 0 to 1.
        lacking: The level's share of what the best so far lacks of 100 %; 1 where there is no such
            end.
    """

    weight: Floats
    luck: Floats
    lacking: Floats

    def columns(self) -> Floats:
        """Return what is weighed, [M, 4]: one, and the three on scales that add up."""
        p = np.clip(self.weight, 3 * MOST, 1 - 3 * MOST)
        columns = np.ones_like(p), np.log(p / (1 - p)), self.luck, np.log(self.lacking)
        return np.stack(columns, axis=1)


def chances(stage: FirstStage, levels: Floats, laws: Laws = LAWS) -> Chances:
    """Return what the probability to reach levels goes with, for a stage of four records or more.

    Args:
        stage: The records so far.
        levels: [M], above the present level.
        laws: What is believed before.
    """
    jitter = noise(stage.accuracy) / float(np.sqrt(WINDOW))
    reaching = np.full(len(levels), NOTHING)
    if has_risen(stage):
        highest, weight = _fitted(stage, laws)
        order = np.argsort(highest)
        from_above = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
        reaching = from_above[np.searchsorted(highest[order], levels - laws.luck * jitter)]
    lacking = np.ones(len(levels))
    if stage.bounded:
        best = float(running_maximum(stage.accuracy)[-1])
        lacking = np.clip((levels - best) / max(100.0 - best, MOST), MOST, 1.0)
    return Chances(np.clip(reaching, 0.0, 1.0), by_luck(stage, levels), lacking)


def _fitted(stage: FirstStage, laws: Laws) -> tuple[Floats, Floats]:
    """Return where each law stands at the horizon, and its weight, [K] each."""
    part = stage.time >= stage.time[-1] / PRIOR.span
    part[-FEWEST:] = True
    s, z = np.log(stage.time[part] / stage.time[-1]), stage.accuracy[part]
    weight = np.exp(s / 2)
    total = weight.sum()
    shape, furthest = _shapes(np.append(s, np.log(HORIZON)))
    mean_shape, mean_z = shape @ weight / total, weight @ z / total
    centred = shape - mean_shape[:, None]
    speed = (centred * weight) @ (z - mean_z) / np.maximum((weight * centred**2).sum(1), 1e-12)
    residual = z - mean_z - speed[:, None] * centred
    error = (weight * residual**2).sum(1) / total
    floor = (laws.misfit * max(float(z.max()), 1.0)) ** 2
    fit = _belief(stage, laws) - 0.5 * laws.evidence * total * np.log(error + floor)
    fit = np.exp(fit - fit.max())
    highest = mean_z - speed * mean_shape + np.maximum(speed, 0.0) * furthest
    return highest, fit / fit.sum()


def _shapes(s: Floats) -> tuple[Floats, Floats]:
    """Return the laws at log times, [K, N], 0 and of slope 1 now; and at the last of these, [K]."""
    curved = np.abs(DAMPING) > 1e-6
    safe = np.where(curved, DAMPING, 1.0)[:, None]
    power = np.where(curved[:, None], -np.expm1(-DAMPING[:, None] * s) / safe, s)
    rate = RATES[:, None]
    exponential = -np.exp(rate) * (np.exp(-rate * np.exp(s)) - np.exp(-rate)) / rate
    shape = np.concatenate((power, exponential))
    return shape[:, :-1], shape[:, -1]


def _belief(stage: FirstStage, laws: Laws) -> Floats:
    """Return the log prior of each law, [K]."""
    slope = loss_slope(stage)
    centre = laws.damping + (PRIOR.unknown_loss if slope is None else slope)
    narrow = np.exp(-0.5 * ((DAMPING - centre) / laws.width) ** 2) / laws.width
    wide = np.exp(-0.5 * ((DAMPING - laws.anywhere) / laws.wide) ** 2) / laws.wide
    power = (narrow + wide) / (narrow + wide).sum() * (1 - laws.exponential)
    each = np.full(len(RATES), laws.exponential / len(RATES))
    return np.asarray(np.log(np.concatenate((power, each)) + 1e-300))
