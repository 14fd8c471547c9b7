"""An LR schedule of trainscope's as a scheduler for any torch optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainscope.training.schedule import LRSchedule, parse_schedule


class ScheduleLR(LRScheduler):
    """Drives an optimizer along an LR schedule, one `step()` an epoch.

    The first parameter group has exactly the schedule's learning rate; the others keep their ratio
    to it. After the last epoch the last learning rate stays.

    >>> scheduler = ScheduleLR(optimizer, parse_schedule("0:1e-2,30:1e-3", 60))  # doctest: +SKIP

    Args:
        optimizer: Its groups' learning rates count by their ratios only.
        schedule: The learning rate of every epoch.
        last_epoch: Epochs already done, less one, as torch counts them.
    """

    def __init__(self, optimizer: Optimizer, schedule: LRSchedule, last_epoch: int = -1) -> None:
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Return the learning rate of each group in the present epoch."""
        rate, first = self.schedule.lr(max(self.last_epoch, 0)), self.base_lrs[0]
        return [rate if base == first else rate * (base / first) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain types, which `torch.load(weights_only=True)` reads."""
        state = super().state_dict()
        return state | {"schedule": str(self.schedule), "total": self.schedule.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        state = dict(state_dict)
        schedule = parse_schedule(state.pop("schedule"), state.pop("total"))
        super().load_state_dict(state)
        self.schedule = schedule
