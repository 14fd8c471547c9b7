"""Growing regularisation: a penalty that grows drives the weights that will go towards zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from trainscope.errors import ActionError, ScheduleError
from trainscope.sparsify import Action
from trainscope.sparsify.criteria.criterion import Repairing
from trainscope.training.plans.plan import Growth, PruningEvent, PruningPlan

STABILISED = 1 / 3
"""The share of the stage at the end of which the penalty stays, where nobody says it."""
PICKED = 1 / 10
"""The share of the stage after which GReg-2 chooses, where nobody says it."""


@dataclass(frozen=True)
class GReg1(PruningPlan):
    """GReg-1: what goes is chosen before the first step, and penalised more and more.

    The weights that will go (of filters their weights, without biases and norms) get the gradient
    of the loss plus a multiple of themselves, g + f w. The factor f rises by `delta` every `every`
    steps from the first one on, up to `ceiling`, and stays there to the end of the stage (the K_s
    steps in which the network settles). Then they are taken away.

    As in the authors' code the product is added to the gradient, after clipping, and is not the
    optimizer's weight decay. So it is defined for every optimizer: momentum gathers it, and Adam
    and AdamW divide it, like all of the gradient, by the root of the mean square, so that there a
    larger factor does not make larger steps once it outweighs the loss.

    Source: Wang, Qin, Zhang, Fu, "Neural Pruning via Growing Regularization" (ICLR 2021), algorithm
    1, and the authors' code. K_u is `every`, delta lambda is `delta`, tau is `ceiling`; theirs are
    5 or 10, 1e-4 and 1, over tens of thousands of steps.

    Attributes:
        every: Steps between two rises.
        ceiling: Of the factor.
        delta: One rise; by default such that the ceiling is reached `stabilise` epochs before the
            end of the stage.
        stabilise: Epochs at the end with the factor at its ceiling; by default a third of the
            stage, or what `delta` leaves.
    """

    every: int = 5
    ceiling: float = 1.0
    delta: float | None = None
    stabilise: float | None = None

    name: ClassVar[str] = "greg-1"

    def __post_init__(self) -> None:
        """Refuse what no growing penalty can be.

        Raises:
            ScheduleError: A field is out of range, or two contradict.
        """
        super().__post_init__()
        if self.every < 1:
            raise self.wrong("every", "a number of steps, 1 or more")
        if not 0 < self.ceiling < float("inf"):
            raise self.wrong("ceiling", "above 0")
        if self.delta is not None and not 0 < self.delta <= self.ceiling:
            raise self.wrong("delta", f"above 0, and at most the ceiling {self.ceiling:g}")
        if self.stabilise is not None and not 0 <= self.stabilise < self.epochs:
            raise self.wrong("stabilise", f"from 0 up to, not with, the {self.epochs} epochs")
        if self.delta is not None and self.stabilise is not None:
            raise ScheduleError(
                f"the pruning schedule {self.name}: delta says when the ceiling is reached, and "
                "stabilise says it too: keep one"
            )

    def check(self, action: Action) -> None:
        """Refuse an action that a penalty cannot prepare.

        Raises:
            ActionError: It is one.
        """
        super().check(action)
        if action.structure != "filter" and isinstance(action.by, Repairing):
            raise ActionError(
                f"{action.criterion_name} changes the weights that stay when others go, and under "
                f"{self.name} those have shrunk before: choose another criterion, like l1"
            )

    def events(self) -> Sequence[PruningEvent]:
        """Return the one event, at the end of the stage."""
        return [PruningEvent(self.epochs, _all)]

    def growth(self, steps: int) -> Growth:
        """Return how the factor grows.

        Raises:
            ScheduleError: It does not reach its ceiling within the stage.
        """
        return self._grown(steps, 0, 0.0)

    def _grown(self, steps: int, pick: int, pick_delta: float) -> Growth:
        """Return the growth after a first passage of `pick` steps."""
        begin = pick_delta * (pick // self.every)
        left = steps * self.epochs - pick
        if self.delta is None:
            share = self.epochs * STABILISED if self.stabilise is None else self.stabilise
            rises = max(int(left - share * steps), 0) // self.every
            delta = (self.ceiling - begin) / max(rises, 1)
        else:
            delta = self.delta
            rises = ceil((self.ceiling - begin) / delta * (1 - 1e-12))
        if rises < 1 or rises * self.every > left:
            raise ScheduleError(
                f"the factor of {self.name} rises {max(rises, 1)} times, each {self.every} steps, "
                f"and its {self.epochs} epochs have {steps * self.epochs} steps, of which {left} "
                "are left for that: give it more epochs, a smaller every or a larger delta"
            )
        return Growth(self.every, delta, self.ceiling, pick, pick_delta)


@dataclass(frozen=True)
class GReg2(GReg1):
    """GReg-2: all weights in scope are penalised, what goes is chosen, and GReg-1 goes on.

    Under one factor for all, weights that the loss holds less fast shrink faster, so that the
    penalty separates what the criterion then ranks. The factor rises by `pick_delta` up to `pick`;
    then the action chooses by the weights as they are, the others are released (factor 0), and the
    factor of the chosen ones rises on as in GReg-1.

    Source: as `GReg1`, algorithm 2; the authors' `pick` is 1e-2 and their `pick_delta` 1e-5. Their
    code can also give the released weights a small negative factor; here they have none.

    Attributes:
        pick: The factor at which what goes is chosen.
        pick_delta: One rise before that; by default such that a tenth of the stage is taken.
    """

    pick: float = 1e-2
    pick_delta: float | None = None

    name: ClassVar[str] = "greg-2"

    def __post_init__(self) -> None:
        """Refuse what no growing penalty can be.

        Raises:
            ScheduleError: A field is out of range, or two contradict.
        """
        super().__post_init__()
        if not 0 < self.pick < self.ceiling:
            raise self.wrong("pick", f"above 0 and below the ceiling {self.ceiling:g}")
        if self.pick_delta is not None and not 0 < self.pick_delta <= self.pick:
            raise self.wrong("pick_delta", f"above 0, and at most {self.pick:g}, where it ends")

    def growth(self, steps: int) -> Growth:
        """Return how the factor grows.

        Raises:
            ScheduleError: It does not reach its ceiling within the stage.
        """
        if self.pick_delta is None:
            rises = max(int(steps * self.epochs * PICKED) // self.every, 1)
        else:
            rises = ceil(self.pick / self.pick_delta * (1 - 1e-12))
        return self._grown(steps, rises * self.every, self.pick / rises)


def _all(ratio: float) -> float:
    return ratio
