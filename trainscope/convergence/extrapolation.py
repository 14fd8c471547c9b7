"""When a curve that is watched alone reaches a level: a damped trend in log time.

Over the last stretch of a curve the accuracy is taken as z(s) = now + v (1 - exp(-k s)) / k, where
s is the log of time over the time watched: a line in log time for damping k = 0, a power law with
an asymptote for k > 0, still accelerating for k < 0. The damping cannot be read off a noisy curve;
a single fit calls reachable targets unreachable. So all dampings on a grid are kept, each weighted
by how well its fit agrees with the curve and with a prior, and the weighted median is the estimate.
The prior's centre follows the training loss: where accuracy is a straight function of loss, the
damping is the slope of log loss in log time. A loss that falls fast runs out of room. Nothing in it
depends on the unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence.ceiling import has_room
from trainscope.convergence.passage import WINDOW, Floats, centred_mean, noise
from trainscope.convergence.stage import FirstStage

Bools = NDArray[np.bool_]

ENOUGH = 4
"""Records without which a curve has no trend."""
DAMPING = np.linspace(-2.0, 5.0, 36)
FAR = 8.0
"""Log time factor (nearly 3,000) at which a level counts as out of sight."""
NOTHING = 0.5
"""The weight in sight for a curve that has not risen yet: nothing is seen, either way."""
STEEPEST = 1.0
"""The most that the loss tells of the damping: an accuracy that misses its asymptote by 1/time."""
LUCKIEST = 3.5
"""Standard deviations above the mean of a flat curve that its noise does not reach."""
FEWEST = 4
"""Records that the last stretch has at least."""


@dataclass(frozen=True)
class Prior:
    """What is believed of a curve before it is seen. Pure numbers.

    Attributes:
        span: The stretch that is fitted, as the ratio of its last to its first time.
        damping: Centre of the prior on the damping where the loss stands still.
        unknown_loss: The slope of log loss that is assumed where there is no loss.
        damping_width: Standard deviation of the prior on the damping.
        evidence: Weight of each record, below one as errors of neighbours are shared.
        misfit: Standard deviation of the form's own error, as a share of the accuracy.
        luck: Standard errors of the centred mean by which a running maximum is ahead of the trend.
        factor: Centre of the prior on log(log time factor).
        factor_width: Its standard deviation.
        near: Error of log(log time factor) where the level is near.
        far: What is added to it for each unit of the log time factor.
        noisy: What is added for each noise-to-rise ratio.
    """

    span: float = 3.6
    damping: float = 0.05
    unknown_loss: float = 0.3
    damping_width: float = 0.25
    evidence: float = 0.5
    misfit: float = 0.0036
    luck: float = 0.4
    factor: float = -0.1
    factor_width: float = 1.6
    near: float = 0.05
    far: float = 0.37
    noisy: float = 0.5


PRIOR = Prior()


@dataclass(frozen=True)
class Sight:
    """The log time factors log(passage / time watched) at which levels are reached.

    Attributes:
        median: [M], above 0; about `FAR` for a level out of sight, less for the prior's pull.
        spread: [M], standard deviation.
        in_sight: [M], the weight of the dampings under which the level is reached at all, or, if
            that is more, how near it is to the scatter of the curve, or how much loss is left.
        straight: [M], the factor of a line in log time, without the prior's pull.
    """

    median: Floats
    spread: Floats
    in_sight: Floats
    straight: Floats


@dataclass(frozen=True)
class Trends:
    """The best trend for each damping of the grid, [K] each.

    Attributes:
        now: The accuracy at the last watched time, percent.
        speed: Its rise per unit of log time there, percent.
        fit: Log weight, up to a constant.
    """

    now: Floats
    speed: Floats
    fit: Floats


def extrapolate(stage: FirstStage, levels: Floats, prior: Prior = PRIOR) -> Sight:
    """Return when the accuracy of a stage with at least four records reaches each level.

    Args:
        stage: The records so far.
        levels: [M], percent, above the present level.
        prior: What is believed before.
    """
    trends = fit_trends(stage, prior)
    jitter = noise(stage.accuracy) / float(np.sqrt(WINDOW))
    speed = np.maximum(trends.speed, 1e-3)
    rise = np.maximum(levels[:, None] - prior.luck * jitter - trends.now, 1e-2) / speed
    left = 1.0 - DAMPING * rise
    factor = np.where(_curved(), -np.log(np.maximum(left, 1e-12)) / _safe(), rise)
    sees = (left > 1e-9) & (factor < FAR)
    factor = np.clip(np.where(sees, factor, FAR), 1e-3, FAR)
    local = speed * np.exp(-np.clip(DAMPING * factor, -4.0, 4.0))
    noisy = np.minimum(jitter / np.maximum(local * factor, 1e-3), 3.0)
    variance = prior.near**2 + (prior.far * factor) ** 2 + (prior.noisy * noisy) ** 2
    found = _mixture(np.log(factor), variance, trends.fit, sees, prior)
    found = replace(found, straight=rise[:, int(np.argmin(np.abs(DAMPING)))])
    if not has_risen(stage):
        return replace(found, in_sight=np.full(len(levels), NOTHING))
    sight = np.maximum(found.in_sight, by_luck(stage, levels))
    # What is left of a training loss tells how far an accuracy has to go, and no other metric.
    return replace(found, in_sight=np.maximum(sight, has_room(stage) if stage.bounded else 0.0))


def fit_trends(stage: FirstStage, prior: Prior) -> Trends:
    """Fit the last stretch of a stage under every damping, by weighted least squares.

    Args:
        stage: The records so far.
        prior: What is believed before.
    """
    part = stage.time >= stage.time[-1] / prior.span
    part[-FEWEST:] = True
    s, z = np.log(stage.time[part] / stage.time[-1]), stage.accuracy[part]
    weight = np.exp(s / 2)
    total = weight.sum()
    shape = np.where(_curved()[:, None], -np.expm1(-DAMPING[:, None] * s) / _safe()[:, None], s)
    mean_shape, mean_z = shape @ weight / total, weight @ z / total
    centred = shape - mean_shape[:, None]
    speed = (centred * weight) @ (z - mean_z) / np.maximum((weight * centred**2).sum(1), 1e-12)
    residual = z - mean_z - speed[:, None] * centred
    error = (weight * residual**2).sum(1) / total
    floor = (prior.misfit * max(float(z.max()), 1.0)) ** 2
    slope = loss_slope(stage)
    centre = prior.damping + (prior.unknown_loss if slope is None else slope)
    belief = -0.5 * ((DAMPING - centre) / prior.damping_width) ** 2
    fit = belief - 0.5 * prior.evidence * total * np.log(error + floor)
    return Trends(mean_z - speed * mean_shape, speed, fit)


def loss_slope(stage: FirstStage) -> float | None:
    """Return the fall of log loss per unit of log time over the last half; None if unknown.

    At most `STEEPEST`: a network that fits its training set sends the loss to zero at any speed,
    while the accuracy may go on rising.
    """
    if stage.loss is None or len(stage) < 3:
        return None
    late = stage.time >= stage.time[-1] / 2
    late[-3:] = True
    s, log_loss = np.log(stage.time[late]), np.log(np.maximum(stage.loss[late], 1e-8))
    s = s - s.mean()
    return float(np.clip(-(s @ log_loss) / (s @ s), 0.0, STEEPEST))


def has_risen(stage: FirstStage) -> bool:
    """Return whether the accuracy has risen at all: a curve still at its start shows no ceiling."""
    best = float(centred_mean(stage.accuracy).max())
    first = float(stage.accuracy[0]) if stage.start is None else stage.start[0]
    return best - first > max(3 * noise(stage.accuracy), 1e-9)


def by_luck(stage: FirstStage, levels: Floats) -> Floats:
    """Return how far the scatter of the last half alone may carry a flat curve to each level.

    One at one standard deviation above its mean, nothing at `LUCKIEST`: a running maximum goes on
    rising by the noise of the curve.
    """
    late = stage.accuracy[-max(len(stage) // 2, FEWEST) :]
    place = np.arange(len(late)) - (len(late) - 1) / 2
    trend = place @ late / (place @ place)
    scatter = float(np.std(late - trend * place))
    above = (levels - late.mean()) / max(scatter, 1e-9)
    return np.asarray(np.clip((LUCKIEST - above) / (LUCKIEST - 1), 0, 1))


def _curved() -> Bools:
    """Return the dampings that are not zero."""
    return np.asarray(np.abs(DAMPING) > 1e-6)


def _safe() -> Floats:
    """Return the dampings with 1 for 0, to divide by."""
    return np.where(_curved(), DAMPING, 1.0)


def _mixture(logs: Floats, variance: Floats, fit: Floats, sees: Bools, prior: Prior) -> Sight:
    """Return the median and spread of the mixture over dampings, each with the factor's prior."""
    width = prior.factor_width**2
    total = variance + width
    weight = fit - 0.5 * ((logs - prior.factor) ** 2 / total + np.log(total))
    weight = np.exp(weight - weight.max(1, keepdims=True))
    weight = weight / weight.sum(1, keepdims=True)
    centre = (logs / variance + prior.factor / width) / (1 / variance + 1 / width)
    order = np.argsort(centre, axis=1)
    centre, ordered = np.take_along_axis(centre, order, 1), np.take_along_axis(weight, order, 1)
    below = np.cumsum(ordered, axis=1) - 0.5 * ordered
    quantile = np.array(
        [np.interp((0.16, 0.5, 0.84), b, c) for b, c in zip(below, centre, strict=True)]
    )
    inner = ((weight / (1 / variance + 1 / width)).sum(1)) ** 0.5
    median = np.exp(quantile[:, 1])
    outer = (quantile[:, 2] - quantile[:, 0]) / 2
    return Sight(median, median * np.hypot(inner, outer), (weight * sees).sum(1), median)
