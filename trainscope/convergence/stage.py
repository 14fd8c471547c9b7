"""The first LR stage of a curve, on the clock of LR time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import Floats

SAME = 1e-6
"""Learning rates whose ratio differs from one by less are the same."""
FEW = 6
"""Records of a first stage with which its first passages are estimated by themselves, and drawn."""
NEARLY = 0.98
"""Share of the largest LR from which on a warm-up is over."""


@dataclass(frozen=True)
class FirstStage:
    """The records before the first decay.

    Attributes:
        time: [N], LR time: the sum of LR over epochs divided by `lr`, so that it is the number of
            epochs at `lr` that would have done as much; equal to the epoch but for a warmup.
        accuracy: [N], what rises as the run gets better (`LearningCurve.quality`): percent.
        loss: [N], nats, or None.
        lr: The LR of the stage: its largest.
        start: (accuracy, loss) of epoch 0 where it was recorded.
        end: LR time at the end of the stage, whether or not it has a record there.
        lag: Epochs minus LR time: what a warmup cost.
        decayed: True where the curve goes on after a decay.
        bounded: True where the points are those of a percentage, which ends at 100.
        unit: What one of all these epochs stands for, in those of the log.
    """

    time: Floats
    accuracy: Floats
    loss: Floats | None
    lr: float
    start: tuple[float, float | None] | None
    end: float
    lag: float
    decayed: bool
    bounded: bool = True
    unit: float = 1.0

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.time)


def first_stage(curve: LearningCurve) -> FirstStage | None:
    """Return the records before the first decay; None for a curve with no epoch after 0."""
    if not len(curve.lr):
        return None
    falls = np.flatnonzero(curve.lr < np.maximum.accumulate(curve.lr) * (1 - SAME))
    count = int(falls[0]) if len(falls) else len(curve.lr)
    edges, rates = curve.lr_epochs[:count], curve.lr[:count]
    peak = float(rates.max())
    end = edges[-1]
    if np.ptp(rates) <= SAME * peak:
        clock = edges
    else:
        clock = np.cumsum(np.diff(edges, prepend=0.0) * rates) / peak
    keep = (curve.epochs > 0) & (curve.epochs <= end)
    start = None
    if len(curve) and curve.epochs[0] == 0:
        loss = None if curve.loss is None or not curve.loss[0] > 0 else float(curve.loss[0])
        start = (float(curve.quality[0]), loss)
    time = curve.epochs
    if clock is not edges:
        time = np.interp(time, np.append(0.0, edges), np.append(0.0, clock))
    keep &= time > 0  # an epoch at LR 0 has done nothing
    time = time[keep]
    return FirstStage(
        time=time,
        accuracy=curve.quality[keep],
        loss=None if curve.loss is None else curve.loss[keep],
        lr=peak,
        start=start,
        end=float(clock[-1]),
        lag=float(end - clock[-1]),
        decayed=bool(len(falls)),
        bounded=curve.scale.percent,
        unit=curve.unit,
    )


def held(curve: LearningCurve, stage: FirstStage) -> int:
    """Return the records of a curve's first LR stage that are at its LR, a warm-up left out."""
    at = curve.epochs[(curve.epochs > 0) & (curve.epochs <= stage.end + stage.lag)]
    place = np.minimum(np.searchsorted(curve.lr_epochs, at), len(curve.lr) - 1)
    return int((curve.lr[place] >= NEARLY * stage.lr).sum())
