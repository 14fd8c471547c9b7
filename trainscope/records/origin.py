"""Where a retrained network came from: its pretraining, and how it was pruned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod

from trainscope.records.action import ActionRecord
from trainscope.records.before import PrunedBefore
from trainscope.records.measurement import Json
from trainscope.records.typed import record_of

ONE_SHOT = "one-shot"
"""The plan of an action that no epoch of training belongs to."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """How a base model was trained. What is not known is None.

    Attributes:
        schedule: Its LR schedule.
        total: The epochs that the schedule plans.
        epochs: The epochs done: with a pruning epoch before the end, fewer than `total`.
        flops: Multiply-adds spent, counted as `Run.flops` counts them.
        accuracy: Test accuracy at the end, percent.
    """

    schedule: str | None = None
    total: int | None = None
    epochs: int | None = None
    flops: int | None = None
    accuracy: float | None = None

    def to_json(self) -> Json:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Json) -> Pretraining:
        """Return the Pretraining that `to_json` wrote."""
        return record_of(cls, raw)


@dataclass(frozen=True, slots=True)
class Pruning:
    """Step 2 of the pruning pipeline. What is not known is None.

    Attributes:
        structure: "filter", "unstructured" or N:M like "2:4": the granularity.
        ratio: The uniform ratio; None where layers differ, or where it is not known.
        criterion: How filters or weights were ranked: "l1", "GReg-1", ...
        scope: "inner" or "all" for filters.
        speedup: Dense FLOPs / pruned FLOPs.
        epoch: The pruning epoch: pretraining epochs before the action.
        plan: The pruning schedule: "one-shot" or words.
        action: The action itself, where trainscope did it.
        stage_epochs: Epochs of training that the pruning stage took, between pretraining and
            retraining: regularised or gradual pruning. 0 for one-shot pruning.
        stage_schedule: The LR schedule of those epochs.
        stage_flops: Multiply-adds spent on them, counted as `Run.flops` counts them.
        before: What had been pruned already when trainscope was given the network.
    """

    structure: str | None = None
    ratio: float | None = None
    criterion: str | None = None
    scope: str | None = None
    speedup: float | None = None
    epoch: int | None = None
    plan: str | None = None
    action: ActionRecord | None = None
    stage_epochs: int | None = None
    stage_schedule: str | None = None
    stage_flops: int | None = None
    before: tuple[PrunedBefore, ...] = ()

    def __post_init__(self) -> None:
        """Check the cost of the pruning stage."""
        for name in ("stage_epochs", "stage_flops"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 0):
                raise ValueError(f"{name} is a whole number, 0 or more, not {value!r}")

    @classmethod
    def came(cls, before: tuple[PrunedBefore, ...]) -> Pruning | None:
        """Return what is known of the pruning that a network came with; None of none.

        How it was ranked, and over which epochs, cannot be seen. Of one that is free to grow again
        nothing is left.
        """
        if not before:
            return None
        held = [each for each in before if each.held]
        speedups = [each.speedup for each in held if each.speedup is not None]
        speedup = prod(speedups) if len(speedups) == len(held) else None
        ratio = held[0].ratio if len(held) == 1 else None if held else 0.0
        structure = held[-1].structure if held else before[-1].structure
        return cls(structure=structure, ratio=ratio, speedup=speedup, before=before)

    @classmethod
    def of(cls, action: ActionRecord, epoch: int | None = None) -> Pruning:
        """Return what an action of trainscope's is, one-shot, after a pruning epoch."""
        return cls(
            structure=action.structure,
            ratio=action.ratio,
            criterion=action.criterion,
            scope=action.scope,
            speedup=action.speedup,
            epoch=epoch,
            plan=ONE_SHOT,
            action=action,
            stage_epochs=0,
            stage_flops=0,
        )

    def to_json(self) -> Json:
        """Return the fields."""
        return {
            "structure": self.structure,
            "ratio": self.ratio,
            "criterion": self.criterion,
            "scope": self.scope,
            "speedup": self.speedup,
            "epoch": self.epoch,
            "plan": self.plan,
            "action": None if self.action is None else self.action.to_json(),
            "stage_epochs": self.stage_epochs,
            "stage_schedule": self.stage_schedule,
            "stage_flops": self.stage_flops,
            "before": [each.to_json() for each in self.before],
        }

    @classmethod
    def from_json(cls, raw: Json) -> Pruning:
        """Return the Pruning that `to_json` wrote, also before it told the pruning stage's cost."""
        action = raw["action"]
        read = None if action is None else ActionRecord.from_json(action)
        free = 0 if raw["plan"] == ONE_SHOT else None
        late = {"stage_epochs": free, "stage_schedule": None, "stage_flops": free}
        before = tuple(PrunedBefore.from_json(each) for each in raw.get("before", ()))
        return record_of(cls, {**late, **raw}, action=read, before=before)
