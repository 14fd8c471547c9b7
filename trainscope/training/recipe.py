"""Recipes in the field's notation: `P60F60,1e-3`, `F90,1e-2`, `P30/F90,1e-2`, `F60,1e-3(+60)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trainscope.errors import ScheduleError
from trainscope.training.schedule import MAX_EPOCHS, LRSchedule
from trainscope.training.shapes import halving, lengthen_first_stage, squeezed_pruning_epoch

PRETRAIN_LR = 1e-1
Shape = Callable[[float, int], LRSchedule]
"""From a first learning rate and a number of epochs to a schedule."""

_FORM = re.compile(
    r"(?:P(?P<pre>[0-9]{1,7})(?P<squeeze>/)?)?F(?P<re>[0-9]{1,7})\s*,\s*"
    r"(?P<lr>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)"
    r"\s*(?:\(\s*\+\s*(?P<extra>[0-9]{1,7})\s*(?:epochs?\s*)?\))?"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pruning pipeline in short.

    Attributes:
        pretrain: Pretraining epochs, the pruning epoch as written; None for retraining alone.
        retrain: Retraining epochs, without the extra ones.
        lr: The first learning rate of retraining.
        extra: Epochs by which its first LR stage grows.
        squeezed: Written with a slash: the pruning epoch is divided by the speedup (SX-B).
        text: As it was written.
    """

    pretrain: int | None
    retrain: int
    lr: float
    extra: int = 0
    squeezed: bool = False
    text: str = ""

    def schedule(self, shape: Shape = halving) -> LRSchedule:
        """Return the LR schedule of retraining; by default step decays, as Wang et al. (2023).

        Args:
            shape: From a first learning rate and a number of epochs to a schedule.
        """
        return lengthen_first_stage(shape(self.lr, self.retrain), self.extra)

    def pruning_epoch(self, speedup: float | None = None) -> int | None:
        """Return the epoch after which the action happens; None for retraining alone.

        Args:
            speedup: Dense FLOPs / pruned FLOPs; needed, and used, where the recipe has a slash.

        Raises:
            ScheduleError: The recipe has a slash and there is no speedup.
        """
        if self.pretrain is None or not self.squeezed:
            return self.pretrain
        if speedup is None:
            raise ScheduleError(
                f"recipe '{self.text}' divides its pruning epoch by the speedup: "
                "give it with --speedup, like --speedup 1.11"
            )
        return squeezed_pruning_epoch(self.pretrain, speedup)

    def pretraining(self, lr: float = PRETRAIN_LR) -> LRSchedule:
        """Return the schedule that pretraining follows up to the pruning epoch.

        It is the scratch schedule of as many epochs as the pipeline has (without extra ones), cut
        off at the pruning epoch: P30F90, P60F60 and P90F30 then share one stem of 120 epochs.

        Args:
            lr: The first learning rate of pretraining.

        Raises:
            ScheduleError: The recipe has no pretraining.
        """
        if self.pretrain is None:
            raise ScheduleError(
                f"recipe '{self.text}' has no pretraining: write one like P60{self.text}"
            )
        return halving(lr, self.pretrain + self.retrain)


def parse_recipe(text: str) -> Recipe:
    """Read a recipe.

    Args:
        text: `P60F60,1e-3` (pretrain 60 epochs, act, retrain 60 from LR 1e-3), `F60,1e-3`
            (retraining alone), `P30/F90,1e-2` (squeezed), any of them with `(+60)` behind.

    Raises:
        ScheduleError: The text is no recipe.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ScheduleError(
            f"'{text}' is no recipe: write one like P60F60,1e-3 or F60,1e-3 or F60,1e-3(+60)"
        )
    pre, retrain, extra = found["pre"], int(found["re"]), int(found["extra"] or 0)
    if retrain < 1 or (pre is not None and int(pre) < 1):
        raise ScheduleError(f"recipe '{text}': P and F take one epoch or more")
    if retrain + extra + int(pre or 0) > MAX_EPOCHS:
        raise ScheduleError(f"recipe '{text}' has more than {MAX_EPOCHS} epochs")
    recipe = Recipe(
        pretrain=None if pre is None else int(pre),
        retrain=retrain,
        lr=float(found["lr"]),
        extra=extra,
        squeezed=found["squeeze"] is not None,
        text=text.strip(),
    )
    recipe.schedule()  # a learning rate out of range is found here
    return recipe
