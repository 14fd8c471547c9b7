"""What a person states about a log, because the log does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from trainscope.records.metric import Metric
from trainscope.records.origin import Pretraining, Pruning
from trainscope.records.run import Kind


@dataclass(frozen=True)
class Given:
    """Facts about a run that its log does not hold. None is not stated.

    Attributes:
        kind: What was trained, from which weights.
        architecture: The network's name.
        data: The data.
        base: SHA-256 of the base model's weights, or any name that tells base models apart.
        schedule: The LR schedule.
        total: The epochs that it plans.
        rates: Its learning rate of every epoch, for logs without.
        structure: "filter", "unstructured" or N:M.
        ratio: The uniform ratio pruned.
        criterion: How filters or weights were ranked.
        scope: "inner" or "all".
        speedup: Dense FLOPs / pruned FLOPs.
        pruning_epoch: Pretraining epochs before the action.
        stage_epochs: Epochs of the pruning stage, 0 for one-shot pruning.
        stage_schedule: Its LR schedule.
        stage_flops: Multiply-adds spent on it.
        pretrain_schedule: The LR schedule of pretraining.
        pretrain_epochs: Epochs of pretraining.
        seed: The seed.
        parameters: Surviving parameters.
        flops: Multiply-adds spent on training.
        settings: Optimizer, momentum and the like, by name.
        columns: The names that fields have in the log, where they are not known by themselves.
        percent: True: accuracies are percentages; False: shares of 1; None: told by their size.
        untrained_first: Epoch 0 of the log is the network before the first step.
        metric: The metric that the column named for the test accuracy holds, where it is another.
        first_epoch: The log's number of the first epoch of this training; None: told by the log.
    """

    kind: Kind = Kind.RETRAIN
    architecture: str | None = None
    data: str | None = None
    base: str | None = None
    schedule: str | None = None
    total: int | None = None
    rates: tuple[float, ...] = ()
    structure: str | None = None
    ratio: float | None = None
    criterion: str | None = None
    scope: str | None = None
    speedup: float | None = None
    pruning_epoch: int | None = None
    stage_epochs: int | None = None
    stage_schedule: str | None = None
    stage_flops: int | None = None
    pretrain_schedule: str | None = None
    pretrain_epochs: int | None = None
    seed: int | None = None
    parameters: int | None = None
    flops: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    percent: bool | None = None
    untrained_first: bool = False
    first_epoch: int | None = None
    metric: Metric | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the fields of a Run that were stated."""
        own = {"rates", "columns", "percent", "kind", "settings", "total"}
        own |= {"untrained_first", "first_epoch"}
        stated = [
            part.name
            for part in fields(self)
            if part.name not in own and getattr(self, part.name) is not None
        ]
        return ("kind", *stated, *(f"settings.{name}" for name in self.settings))

    @property
    def pruning(self) -> Pruning | None:
        """Return what was stated of the pruning method, None if nothing was."""
        known = Pruning(
            structure=self.structure,
            ratio=self.ratio,
            criterion=self.criterion,
            scope=self.scope,
            speedup=self.speedup,
            epoch=self.pruning_epoch,
            stage_epochs=self.stage_epochs,
            stage_schedule=self.stage_schedule,
            stage_flops=self.stage_flops,
        )
        return known if known != Pruning() or self.kind is not Kind.TRAIN else None

    @property
    def pretraining(self) -> Pretraining | None:
        """Return what was stated of pretraining, None if nothing was."""
        epochs = self.pruning_epoch if self.pretrain_epochs is None else self.pretrain_epochs
        known = Pretraining(
            schedule=self.pretrain_schedule, total=self.pretrain_epochs, epochs=epochs
        )
        return None if known == Pretraining() else known
