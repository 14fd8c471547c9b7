"""Pruning schedules by name: gradual and iterative pruning, growing regularisation."""

from __future__ import annotations

from trainscope.errors import ScheduleError
from trainscope.records.origin import ONE_SHOT
from trainscope.training.plans.gradual import GradualPruning
from trainscope.training.plans.greg import GReg1, GReg2
from trainscope.training.plans.iterative import IterativePruning
from trainscope.training.plans.plan import PruningPlan

__all__ = [
    "PLANS",
    "GReg1",
    "GReg2",
    "GradualPruning",
    "IterativePruning",
    "PruningPlan",
    "parse_plan",
]

PLANS: tuple[type[PruningPlan], ...] = (GradualPruning, IterativePruning, GReg1, GReg2)
"""Every pruning schedule but one-shot pruning, which takes no epochs."""


def parse_plan(text: str) -> PruningPlan | None:
    """Read a pruning schedule, like `gradual:30` or `iterative:40,rounds=5,lr=1e-2`.

    Args:
        text: The name, a colon, the epochs of the pruning stage, and settings with commas between
            them; or "one-shot".

    Returns:
        The schedule; None for "one-shot".

    Raises:
        ScheduleError: The text is none.
    """
    name, colon, rest = text.strip().partition(":")
    if text.strip() == ONE_SHOT:
        return None
    found = next((kind for kind in PLANS if kind.name == name.strip()), None)
    if found is None:
        names = ", ".join(kind.name for kind in PLANS)
        raise ScheduleError(
            f"no pruning schedule is named '{name}': choose from {ONE_SHOT}, {names}, and write "
            "the epochs behind it, like gradual:30"
        )
    if not colon:
        raise ScheduleError(
            f"the pruning schedule {name} takes epochs: write them behind it, like {name}:30"
        )
    return found.read(rest)
