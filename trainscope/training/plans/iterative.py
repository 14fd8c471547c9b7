"""Iterative pruning: rounds of pruning and retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from trainscope.sparsify import Action
from trainscope.sparsify.ratios import after_round
from trainscope.training.plans.gradual import refuse_n_m
from trainscope.training.plans.plan import PruningEvent, PruningPlan
from trainscope.training.schedule import LRSchedule, from_rates
from trainscope.training.shapes import shaped


@dataclass(frozen=True)
class IterativePruning(PruningPlan):
    """Iterative (magnitude) pruning: prune a part, retrain, and again.

    Of n rounds each leaves the same share of what the last one left, (1 - s)^(1/n). Between two of
    them the network is retrained for epochs / (n - 1) epochs with a new optimizer, under an LR
    schedule that begins anew (LR rewinding); the retraining after the last round is the Run's own.
    Where the Run's weights are those of a winning ticket, each round rewinds the survivors too.

    Source: Han et al. (2015); Frankle and Carbin (2019) with rewound weights; Renda et al. (2020)
    with a rewound LR.

    Attributes:
        rounds: n, 2 or more; the stage is a multiple of n - 1 epochs.
    """

    shape: str = "halving"
    rounds: int = 2

    name: ClassVar[str] = "iterative"
    restarts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what no iterative pruning can be.

        Raises:
            ScheduleError: A field is out of range.
        """
        super().__post_init__()
        if self.rounds < 2:
            raise self.wrong("rounds", "2 or more")
        if self.epochs % (self.rounds - 1):
            raise self.wrong(
                "epochs",
                f"retraining between {self.rounds} rounds, a multiple of {self.rounds - 1}",
            )

    def check(self, action: Action) -> None:
        """Refuse an action whose share cannot rise.

        Raises:
            ActionError: It is one.
        """
        super().check(action)
        refuse_n_m(self, action)

    def lr_schedule(self, lr: float) -> LRSchedule:
        """Return the LR schedule of the stage: the same one for each round, one after the other."""
        each = self.epochs // (self.rounds - 1)
        made = shaped(self.shape, None, None)(lr if self.lr is None else self.lr, each)
        return from_rates(made.rates() * (self.rounds - 1))

    def events(self) -> Sequence[PruningEvent]:
        """Return the n events, the first one before the first epoch."""
        each = self.epochs // (self.rounds - 1)
        return [
            PruningEvent(
                (number - 1) * each, partial(after_round, number=number, rounds=self.rounds)
            )
            for number in range(1, self.rounds + 1)
        ]
