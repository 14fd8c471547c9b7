"""Learning curves, and how many extra epochs a small learning rate needs. Numpy only."""

from trainscope.convergence.continued import continued_schedule
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.decay_gain import final_level
from trainscope.convergence.early_decay import early_decay as decayed_too_early
from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.estimate import Band, EarlyDecay, Estimate, EstimateStatus, Interval
from trainscope.convergence.extra_epochs import estimate_extra_epochs
from trainscope.convergence.plan import own_schedule

__all__ = [
    "Band",
    "EarlyDecay",
    "Estimate",
    "EstimateStatus",
    "Interval",
    "LearningCurve",
    "continued_schedule",
    "decayed_too_early",
    "estimate_extra_epochs",
    "final_level",
    "loss_at_ends",
    "own_schedule",
]
