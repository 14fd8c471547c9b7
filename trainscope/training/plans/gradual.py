"""Gradual pruning: the share that is gone rises by a cubic law while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from trainscope.errors import ActionError
from trainscope.sparsify import Action
from trainscope.training.plans.plan import PruningEvent, PruningPlan


@dataclass(frozen=True)
class GradualPruning(PruningPlan):
    """Gradual magnitude pruning, with the action's criterion in the place of magnitude.

    After each `every` epochs, n times in all, as much goes as makes the share that is gone

        s_k = s (1 - (1 - k / n)^3),    k = 1 .. n,

    of which a little goes each time towards the end, when little is left. What is gone stays gone.
    Single weights keep the optimizer's state; after a cut of filters the optimizer is new.

    Source: Zhu and Gupta, "To prune, or not to prune" (2017), equation 1, with the initial sparsity
    0. There masked weights may come back; here they do not.

    Attributes:
        every: Epochs between two events; the stage is a multiple of it.
    """

    every: int = 1

    name: ClassVar[str] = "gradual"

    def __post_init__(self) -> None:
        """Refuse what no gradual pruning can be.

        Raises:
            ScheduleError: A field is out of range.
        """
        super().__post_init__()
        if self.every < 1 or self.epochs % self.every:
            raise self.wrong("every", f"a number of epochs that divides {self.epochs}")

    def check(self, action: Action) -> None:
        """Refuse an action whose share cannot rise.

        Raises:
            ActionError: It is one.
        """
        super().check(action)
        refuse_n_m(self, action)

    def events(self) -> Sequence[PruningEvent]:
        """Return the n events."""
        count = self.epochs // self.every
        return [
            PruningEvent(k * self.every, partial(cubic, k=k, count=count))
            for k in range(1, count + 1)
        ]


def cubic(ratio: float, *, k: int, count: int) -> float:
    """Return what is gone after event k of `count`, of a ratio in the end."""
    return ratio if k == count else ratio * (1 - (1 - k / count) ** 3)


def refuse_n_m(plan: PruningPlan, action: Action) -> None:
    """Refuse N:M, which has one ratio.

    Raises:
        ActionError: The action is N:M.
    """
    if action.n_m is not None:
        raise ActionError(
            f"the pruning schedule {plan.name} raises the ratio step by step, and "
            f"{action.structure} has one ratio: use greg-1 or greg-2, or leave the schedule out"
        )
