"""What every pruning schedule has: its epochs, their LR, and what it makes of an action."""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, get_type_hints

from trainscope.errors import ActionError, ScheduleError
from trainscope.records.notation import write_lr
from trainscope.sparsify import Action
from trainscope.sparsify.action import INFLUENCE
from trainscope.training.schedule import MAX_EPOCHS, MAX_LR, LRSchedule
from trainscope.training.shapes import SHAPES, shaped

DIGITS = 12
Share = Callable[[float], float]
"""From the ratio in the end to the ratio that is gone after an event."""


@dataclass(frozen=True)
class PruningEvent:
    """Something goes, after an epoch.

    Attributes:
        epoch: Epochs of the pruning stage done by then; 0 is before the first.
        share: What is gone afterwards, of what is gone in the end.
    """

    epoch: int
    share: Share

    def of(self, action: Action) -> Action:
        """Return the action that reaches the share."""
        return replace(
            action,
            ratio=None if action.ratio is None else self.reached(action.ratio),
            ratios={pattern: self.reached(ratio) for pattern, ratio in action.ratios.items()},
        )

    def reached(self, ratio: float) -> float:
        """Return what is gone afterwards of a ratio, as a decimal.

        A law that gives 0.7 gives 0.7000000000000001 in binary, of which one weight more would go.
        """
        return round(self.share(ratio), DIGITS)


@dataclass(frozen=True)
class Growth:
    """How the factor of a penalty grows from step to step.

    Attributes:
        every: Steps between two rises; the first rise is before the first step.
        pick: Steps during which all weights are penalised; what goes is chosen after them. 0 where
            it is chosen before the first.
        pick_delta: The rise during those.
        delta: The rise after them.
        ceiling: Where it stops.
    """

    every: int
    delta: float
    ceiling: float
    pick: int = 0
    pick_delta: float = 0.0

    def at(self, step: int) -> float:
        """Return the factor at a step, counted from 0."""
        if step < self.pick:
            return self.pick_delta * (step // self.every + 1)
        picked = self.pick_delta * (self.pick // self.every)
        rises = (step - self.pick) // self.every + 1
        return min(picked + self.delta * rises, self.ceiling)


@dataclass(frozen=True)
class PruningPlan(ABC):
    """A pruning schedule: the sparsifying action happens over epochs of training.

    These epochs, the pruning stage, lie between the base model and retraining, and a Run's
    `pruning` counts them. The last event is at the end of the stage; what is left is retrained.

    Attributes:
        epochs: Of the pruning stage.
        lr: Its first learning rate; by default the largest one of retraining.
        shape: How the LR goes on: one of `training.shapes.SHAPES` but "rewind".
    """

    epochs: int
    lr: float | None = None
    shape: str = "constant"

    name: ClassVar[str] = ""
    restarts: ClassVar[bool] = False
    """Whether training begins anew after each event: the optimizer, and the LR schedule."""

    def __post_init__(self) -> None:
        """Refuse what no pruning stage can be.

        Raises:
            ScheduleError: A field is out of range.
        """
        if not 1 <= self.epochs <= MAX_EPOCHS:
            raise self.wrong("epochs", f"from 1 to {MAX_EPOCHS}")
        if self.lr is not None and not 0 < self.lr <= MAX_LR:
            raise self.wrong("lr", f"in (0, {MAX_LR:g}]")
        if self.shape not in SHAPES or self.shape == "rewind":
            shapes = ", ".join(shape for shape in SHAPES if shape != "rewind")
            raise self.wrong("shape", f"one of {shapes}")

    def wrong(self, field: str, wanted: str) -> ScheduleError:
        """Return the error that says what a field is to be."""
        verb = "are" if field in ("epochs", "rounds") else "is"
        return ScheduleError(
            f"the pruning schedule {self.name}: {field} {verb} {wanted}, not {getattr(self, field)}"
        )

    def __str__(self) -> str:
        """Return the notation, like `gradual:30,every=2`, which `parse_plan` reads."""
        found = [f"{self.name}:{self.epochs}"]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "epochs" and value != each.default:
                written = write_lr(value) if isinstance(value, float) else value
                found.append(f"{each.name}={written}")
        return ",".join(found)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what stands behind the name and its colon.

        Raises:
            ScheduleError: It is not of the notation.
        """
        hints = get_type_hints(cls)
        known = [each.name for each in fields(cls) if each.name != "epochs"]
        epochs, *rest = (part.strip() for part in text.split(","))
        if not re.fullmatch("[0-9]{1,7}", epochs):
            raise ScheduleError(
                f"the pruning schedule '{cls.name}:{text}' does not begin with its epochs: write "
                f"one like {cls.name}:30"
            )
        values: dict[str, Any] = {"epochs": int(epochs)}
        for part in rest:
            key, sign, value = (piece.strip() for piece in part.partition("="))
            if key not in known or not sign:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]}=?" if near else f"it has {', '.join(known)}"
                raise ScheduleError(f"'{part}' is no setting of the schedule {cls.name}: {hint}")
            if key in values:
                raise ScheduleError(f"the pruning schedule {cls.name} has {key} twice: keep one")
            values[key] = _value(cls.name, key, value, hints[key])
        return cls(**values)

    def lr_schedule(self, lr: float) -> LRSchedule:
        """Return the LR schedule of the stage.

        Args:
            lr: The first LR where the plan has none.
        """
        return shaped(self.shape, None, None)(lr if self.lr is None else self.lr, self.epochs)

    def check(self, action: Action) -> None:
        """Refuse an action that cannot happen over epochs.

        Raises:
            ActionError: It is one.
        """
        parts = [name for name in ("heads", "blocks") if getattr(action, name) is not None]
        if action.kept or action.criterion == INFLUENCE or parts:
            what = " and ".join(parts) or ("named filters" if action.kept else "blocks")
            raise ActionError(
                f"the pruning schedule {self.name} takes filters or weights by a ratio, and {what} "
                "go all at once: leave the schedule out, or prune them before"
            )

    @abstractmethod
    def events(self) -> Sequence[PruningEvent]:
        """Return when how much goes, in order; the last one at the end of the stage."""

    def growth(self, steps: int) -> Growth | None:
        """Return how a penalty grows over the steps of the stage; None where there is none.

        Args:
            steps: Of one epoch.

        Raises:
            ScheduleError: It does not fit into the stage.
        """
        return None


def _value(name: str, key: str, text: str, hint: Any) -> Any:
    """Return the value of a setting as its field holds it."""
    if hint is str:
        return text
    kind: Callable[[str], Any] = int if hint is int else float
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ScheduleError(
            f"the pruning schedule {name}: {key} is {wanted}, not '{text}'"
        ) from error
