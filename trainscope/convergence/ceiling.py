"""What the training loss leaves to be gained: whether a level is out of reach, or only far.

While the training loss is far from zero there is something left to learn, and a test accuracy that
seems to level off does so for a while. Once the loss is spent, the test accuracy has little left to
move it, and a reference tells where it ends: at equal training loss the two runs' test accuracies
are apart, and what is apart then stays apart. A small LR that fits its training set as well as the
large one did, at a lower test accuracy, does not reach the large one's best: it generalises less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.passage import (
    WINDOW,
    Floats,
    centred_mean,
    first_passage,
    noise,
    running_maximum,
)
from trainscope.convergence.stage import FirstStage

SPENT = 0.12
"""Share of the loss left below which it begins to count as spent."""
PLENTY = 0.4
"""Share of the loss left above which nothing counts as out of reach."""
HOPELESS, SAFE = -2.0, 6.0
"""Standard errors by which a ceiling is above a level: never reached at one, sure at the other."""
GRAIN = 0.1
"""Points of accuracy that are not told apart."""


def loss_left(stage: FirstStage) -> float | None:
    """Return the share of the training loss that is left, 0 to 1; None where there is no loss.

    Of the untrained network's loss or of one nat, whichever makes it less: a pruned network may
    begin with little loss.
    """
    if stage.loss is None or not len(stage):
        return None
    now = float(np.median(stage.loss[-WINDOW:]))
    untrained = None if stage.start is None else stage.start[1]
    first = float(stage.loss[0]) if untrained is None else untrained
    return float(min(now / max(first, 1e-8), -np.expm1(-now)))


def has_room(stage: FirstStage) -> float:
    """Return how far the loss says that the accuracy, not falling now, will rise on, 0 to 1."""
    left = loss_left(stage)
    if left is None:
        return 0.0
    now = float(centred_mean(stage.accuracy)[-1])
    fallen = float(running_maximum(stage.accuracy)[-1]) - now
    if fallen > 2 * _stderr(stage):
        return 0.0
    return float(np.clip((left - SPENT) / (PLENTY - SPENT), 0, 1))


@dataclass(frozen=True)
class Ceiling:
    """Where the small run ends if it stays as far from the reference as it is at equal loss.

    Attributes:
        left: Share of the training loss that is left, 0 to 1.
        ahead: Points by which the small run's accuracy is above the reference's at equal loss.
        stderr: Its standard error.
        best: The reference's highest centred mean, percent.
    """

    left: float
    ahead: float
    stderr: float
    best: float

    def in_reach(self, levels: Floats) -> Floats:
        """Return how far each level is in reach, 0 to 1, [M].

        Args:
            levels: [M], percent. One above the reference's best is taken to be within its reach.
        """
        margin = (np.maximum(self.best, levels) + self.ahead - levels) / self.stderr
        sure = np.clip((margin - HOPELESS) / (SAFE - HOPELESS), 0, 1)
        spent = float(np.clip(1 - self.left / SPENT, 0, 1))
        return np.asarray(1 - spent * (1 - sure))


def ceiling(small: FirstStage, reference: FirstStage) -> Ceiling | None:
    """Return the ceiling that a reference tells of; None without losses to compare.

    Args:
        small: The watched stage.
        reference: At least two records.
    """
    left = loss_left(small)
    if left is None or small.loss is None or reference.loss is None:
        return None
    fitted = np.maximum.accumulate(-reference.loss)
    now = -float(np.median(small.loss[-WINDOW:]))
    at = float(first_passage(reference.time, fitted, np.array([now]))[0])
    if not np.isfinite(at):  # it fits better than the reference ever did
        return None
    its = float(np.interp(at, reference.time, centred_mean(reference.accuracy)))
    return Ceiling(
        left=left,
        ahead=float(small.accuracy[-WINDOW:].mean()) - its,
        stderr=max(float(np.hypot(_stderr(small), _stderr(reference))), GRAIN),
        best=float(running_maximum(reference.accuracy)[-1]),
    )


def _stderr(stage: FirstStage) -> float:
    """Return the standard error of the centred mean, percent."""
    return noise(stage.accuracy) / float(np.sqrt(WINDOW))
