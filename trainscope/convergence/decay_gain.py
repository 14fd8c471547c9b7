"""What the LR decays will add to the accuracy at the end of the first stage.

Two parts. The decays are themselves some training: their LR time, in epochs at the first stage's
LR, lengthens the stage. And a smaller LR takes out the noise of the larger one (the annealed part
of the law of Tissue et al., 2024, in terms of accuracy): that gain is read off the run's own decays
where it has them, else off the reference's, shrunk by a power of the ratio of the LRs, else it is
put at a multiple of the epoch-to-epoch noise of the accuracy, which the same noise of the weights
causes, and is as unsure as the curve is steep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.early_decay import log_slope
from trainscope.convergence.passage import Floats, centred_mean, noise
from trainscope.convergence.stage import FirstStage
from trainscope.errors import RecordError

SHRINK = 0.6
"""Power of the ratio of the LRs by which the gain shrinks; 0.3 to 0.9 in our own retrainings."""
SHRINK_ERROR = 0.3
PER_NOISE = 0.9
"""Gain for each point of epoch-to-epoch noise, beyond the decays' LR time; up to 2 in some of our
own retrainings, and little where the training loss is spent."""
PER_SLOPE = 1.3
"""How unsure that guess is, for each point that the curve moves over a unit of log time: what
decays bring to a language model shows in no noise and is as much as that."""
OF_LACKING = 0.25
"""The most of that, as a share of what a percentage lacks."""
LAST = 3
"""Records at the end whose mean is the accuracy after the decays."""


@dataclass(frozen=True)
class Gain:
    """The points of accuracy that the decays add, beyond their LR time.

    Attributes:
        mean: Percent.
        stderr: Percent.
        source: Where it was learned, in words.
        guessed: True where no decays were seen.
    """

    mean: float
    stderr: float
    source: str
    guessed: bool = False

    def draws(self) -> tuple[Floats, Floats]:
        """Return five values of the gain, percent, and their weights."""
        nodes = np.array([-1.6, -0.7, 0.0, 0.7, 1.6])
        weights = np.array([0.12, 0.24, 0.28, 0.24, 0.12])
        return np.maximum(self.mean + nodes * self.stderr, 0.0), weights


def final_quality(curve: LearningCurve, stage: FirstStage) -> float | None:
    """Return what rises with quality as it is after the decays; None where there is none."""
    after = curve.quality[curve.epochs > stage.end + stage.lag]
    return float(after[-LAST:].mean()) if stage.decayed and len(after) else None


def final_level(curve: LearningCurve) -> float:
    """Return the value that a run ended with, in its unit: the mean of its last records.

    Raises:
        RecordError: The run has no value.
    """
    if not len(curve):
        name = curve.metric.name
        raise RecordError(f"the run to match has no {name}; give --target, or another run")
    return float(curve.accuracy[-LAST:].mean())


def observed_gain(curve: LearningCurve, stage: FirstStage) -> float | None:
    """Return the gain of a run that has decayed, percent; None where it has not."""
    final = final_quality(curve, stage)
    if final is None or not len(stage):
        return None
    return max(final - float(centred_mean(stage.accuracy)[-1]), 0.0)


def decay_gain(
    curve: LearningCurve,
    stage: FirstStage,
    reference: LearningCurve | None,
    reference_stage: FirstStage | None,
) -> Gain:
    """Return the gain to expect of a run's decays.

    Args:
        curve: The run, with its decays if it has had them.
        stage: Its first stage.
        reference: The run at a larger LR.
        reference_stage: Its first stage.
    """
    own = observed_gain(curve, stage)
    jitter = noise(stage.accuracy)
    if own is not None:
        return Gain(own, max(0.3 * own, jitter / 2), "its own decays")
    if reference is not None and reference_stage is not None:
        its = observed_gain(reference, reference_stage)
        if its is not None:
            apart = max(float(np.log(reference_stage.lr / stage.lr)), 0.0)
            mean = its * float(np.exp(-SHRINK * apart))
            spread = mean * float(np.hypot(0.3, SHRINK_ERROR * apart))
            return Gain(mean, max(spread, jitter / 2), "the reference's decays")
    mean = PER_NOISE * jitter
    source = f"the noise of the {curve.metric.name} from epoch to epoch"
    unseen = PER_SLOPE * max(log_slope(stage)[0], 0.0)
    if stage.bounded and len(stage):  # a curve that is still steep says less of its decays
        unseen = min(unseen, OF_LACKING * (100.0 - float(stage.accuracy.max())))
    spread = float(np.hypot(mean, unseen))
    return Gain(mean, spread, source, guessed=True)
