"""The records of runs as the law of schedules sees them: qualities, and the clocks of their LRs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import Floats, centred_mean, noise
from trainscope.convergence.scale import nats_of
from trainscope.convergence.track import Track

RECORDS = 60
"""Records of a run that are looked at, at most, half of them evenly in log time."""
FEWEST = 4
"""Records without which nothing is fitted."""
UNMOVED = 1e-3
"""Share of a run's clock before which a warm-up from an LR of 0 has done nothing."""
TINY = 1e-12
"""The least that a clock shows."""
LAST = 3
"""Records at a run's end that are looked at for whether it has left the law, or fits too well."""
FITTED = (0.3, 0.9)
"""Training loss over test loss up to which nothing that decays release helps the test, and from
which on all of it does."""
LOUDER = 0.2
"""Share of the noise that a power law adds above the largest LR in evidence that is believed."""
SMALLEST = 1e-3
"""Points below which two accuracies are the same."""


def clocks(
    track: Track, at: Floats, reference: float, q: Floats, p: Floats, delay: Floats
) -> tuple[Floats, Floats]:
    """Return tau and n at some epochs, [G, M] each.

    Args:
        track: LRs from epoch 0.
        at: [M], increasing, positive.
        reference: The LR that counts as one.
        q: [G], power of the LR in the clock.
        p: [G], power of the LR in the noise.
        delay: [G], clock time over which the noise follows its LR.
    """
    whole = track.split(at)
    rates = whole.rates / reference
    steps = np.diff(whole.edges, prepend=0.0) * rates[None] ** q[:, None]
    kept = np.exp(-steps / delay[:, None])
    level = np.where(rates > 0, np.maximum(rates, 1e-300)[None] ** p[:, None], 0.0)
    level = np.where(level > 1, 1 + LOUDER * (level - 1), level)
    held = np.empty_like(level)
    now = level[:, 0]
    for i in range(held.shape[1]):
        now = level[:, i] + (now - level[:, i]) * kept[:, i]
        held[:, i] = now
    place = np.searchsorted(whole.edges, at)
    return np.cumsum(steps, axis=1)[:, place], held[:, place]


@dataclass(frozen=True)
class Evidence:
    """The records of every run, as the fit sees them.

    Attributes:
        quality: [N].
        below: [N], by how much each lies below the last of its run.
        tau: [G, N], over the longest run.
        held: [G, N], the noise that the LR keeps up.
        end: [G], tau at the end of the watched run.
        now: [G], the noise there.
        count: Records of the watched run, which come first.
        apart: How far apart the logarithms of the runs' peak LRs are.
        rise: Of the watched run's quality over a unit of log time, or its fall.
        falls: True where it is a fall.
        jitter: Standard deviation of one record about its curve.
    """

    quality: Floats
    below: Floats
    tau: Floats
    held: Floats
    end: Floats
    now: Floats
    count: int
    apart: float
    rise: float
    falls: bool
    jitter: float


def evidence_of(
    curves: Sequence[LearningCurve], reference: float, horizon: float, grid: Floats
) -> Evidence:
    """Return the records of every run with the clocks of every power of the grid."""
    q, p, delay = grid
    columns, ends, noises = [], [], []
    for curve in curves:
        at, values, below = _records(curve)
        tau, held = clocks(Track.of(curve), at, reference, q, p, delay * horizon)
        # What an LR of next to nothing left where it was is no point of a power law.
        begun = np.asarray((tau > UNMOVED * tau[:, -1:]).all(axis=0))
        begun[-FEWEST:] = True
        columns.append((values[begun], below[begun], tau[:, begun], held[:, begun]))
        ends.append(tau[:, -1])
        noises.append(held[:, -1])
    quality, below, tau, held = (
        np.concatenate(column, axis=-1) for column in zip(*columns, strict=True)
    )
    rise = _rise(*_records(curves[0])[:2])
    return Evidence(
        quality=quality,
        below=below,
        tau=np.maximum(tau / horizon, TINY),
        held=held,
        end=np.maximum(ends[0] / horizon, TINY),
        now=noises[0],
        count=len(columns[0][0]),
        apart=float(np.ptp([np.log(c.lr.max()) for c in curves])),
        rise=abs(rise),
        falls=rise < 0,
        jitter=max(noise(c.quality[c.epochs > 0]) for c in curves),
    )


def grain_of(curve: LearningCurve) -> float:
    """Return the smallest step between values: of an accuracy, that of one test sample."""
    steps = np.diff(np.unique(curve.quality))
    steps = steps[steps > SMALLEST]
    return float(steps.min()) if len(steps) else 0.0


def helped_share(curve: LearningCurve) -> float:
    """Return how much of what decays bring to the training loss reaches the test loss, 0 to 1.

    Of a network that fits its training set far better than the test set, next to nothing does. 1
    where the metric is no cross-entropy (`nats_of`), or no training loss was recorded.
    """
    nats = 1.0 if curve.scale.log else nats_of(curve.metric)
    if curve.loss is None or nats is None:
        return 1.0
    test = float((np.log(curve.accuracy) if curve.scale.log else curve.accuracy)[-LAST:].mean())
    test, training = nats * test, float(curve.loss[-LAST:].mean())
    if not (test > 0 and np.isfinite(training)):
        return 1.0
    none, all_of_it = FITTED
    return float(np.clip((training / test - none) / (all_of_it - none), 0.0, 1.0))


def _records(curve: LearningCurve) -> tuple[Floats, Floats, Floats]:
    """Return epochs, qualities, and by how much each lies below the last, [N] each."""
    keep = curve.epochs > 0
    at, values = curve.epochs[keep], curve.quality[keep]
    below = np.abs(float(centred_mean(values)[-1]) - values)
    if len(at) > RECORDS:
        half = RECORDS // 2
        even = np.linspace(1, len(at), half)
        place = np.concatenate((even, np.geomspace(1, len(at), half))).round().astype(int) - 1
        place = np.unique(place)
        return at[place], values[place], below[place]
    return at, values, below


def _rise(at: Floats, values: Floats) -> float:
    """Return the rise of the quality over a unit of log time, over the last half of a run."""
    late = at >= at[-1] / 2
    late[-FEWEST:] = True
    s = np.log(at[late])
    s = s - s.mean()
    spread = float(s @ s)
    return float(s @ values[late]) / spread if spread > 0 else 0.0
