"""Runs made up by hand, fed to every test of comparing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trainscope.records import (
    ActionRecord,
    EpochRecord,
    Kind,
    LayerChange,
    Metric,
    Pretraining,
    Pruning,
    Run,
)
from trainscope.training.schedule import parse_schedule

BASE, OTHER_BASE = "ab" * 32, "cd" * 32
LARGE = "0:1e-2,10:1e-3,15:1e-4"
SMALL = "0:1e-3,10:1e-4,15:1e-5"
SMALL_LONGER = "0:1e-3,70:1e-4,75:1e-5"
SETTINGS = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64}
DENSE_EPOCH, SPEEDUP = 10_000, 8.0


def action(criterion: str = "l1", ratio: float = 0.9, after: int = 2) -> ActionRecord:
    """Return an action that leaves `after` of 16 filters in one layer."""
    return ActionRecord(
        structure="filter",
        scope="inner",
        criterion=criterion,
        ratio=ratio,
        parameters=1000,
        flops=10_000,
        speedup=SPEEDUP,
        layers=(LayerChange("conv1", 16, after),),
        meaning=f"{100 * ratio:g} % of the filters of 1 inner convolution",
    )


def run(
    schedule: str = LARGE,
    total: int = 20,
    *,
    criterion: str = "l1",
    ratio: float = 0.9,
    after: int = 2,
    seed: int = 0,
    pretrained: int = 20,
    ceiling: float = 98.0,
    speed: float = 60.0,
    noise: float = 0.2,
    **changes: Any,
) -> Run:
    """Return a retraining whose accuracy nears its ceiling as LR time passes.

    `speed` is how fast: accuracy is ceiling * (1 - exp(-speed * sum of LR ** 0.5)).
    """
    rng = random.Random(f"{schedule}{criterion}{seed}")
    parsed = parse_schedule(schedule, total)
    epochs, time = [], 0.0
    for epoch in range(total):
        time += parsed.lr(epoch)
        share = 1 - math.exp(-speed * math.sqrt(time) / 3)
        accuracy = min(100.0, max(0.0, ceiling * share + rng.gauss(0, noise)))
        loss = 2.3 * (1 - share) + 0.005
        epochs.append(EpochRecord(epoch + 1, parsed.lr(epoch), loss, loss + 0.1, accuracy, 0.1))
    made = Run(
        kind=Kind.RETRAIN,
        epochs=tuple(epochs),
        schedule=schedule,
        total=total,
        architecture="digits_resnet",
        data="digits",
        base=BASE,
        pruning=Pruning.of(action(criterion, ratio, after), pretrained),
        pretraining=Pretraining("0:1e-1", pretrained, pretrained, pretrained * DENSE_EPOCH, 98.6),
        settings=SETTINGS,
        seed=seed,
        parameters=1000,
        flops_per_sample=10_000,
        flops=round(total * DENSE_EPOCH / SPEEDUP),
        start_metric=10.0,
    )
    return replace(made, **changes)


def seeds(count: int = 3, **options: Any) -> list[Run]:
    """Return the same run with several seeds."""
    return [run(seed=seed, **options) for seed in range(count)]


ERROR = Metric("error", "%", "lower")


def told_by(made: Run, metric: Metric, value: Callable[[float], float]) -> Run:
    """Return a run of accuracies as one that is told by another metric."""

    def of(accuracy: float | None) -> float | None:
        return None if accuracy is None else value(accuracy)

    epochs = tuple(
        replace(record, test_metric=of(record.test_metric), metric=metric) for record in made.epochs
    )
    start = of(made.start_metric)
    return replace(made, metric=metric, epochs=epochs, start_metric=start)


def eighths(made: Run) -> Run:
    """Return a run whose accuracies are eighths, which 100 less is exact of."""
    return told_by(made, made.metric, lambda accuracy: round(8 * accuracy) / 8)


def mirrored(made: Run) -> Run:
    """Return a run as told by its error: what its accuracy lacks of 100 %."""
    return told_by(made, ERROR, lambda accuracy: 100.0 - accuracy)


def five_settings(count: int = 3) -> list[Run]:
    """Return one pruned network under four LRs, and the small LR with a longer first stage."""
    found = []
    for lr in ("1e-1", "1e-2", "1e-3", "1e-4"):
        tenth, hundredth = (f"{float(lr) / 10**k:.0e}".replace("e-0", "e-") for k in (1, 2))
        found += seeds(count, schedule=f"0:{lr},10:{tenth},15:{hundredth}")
    return found + seeds(count, schedule=SMALL_LONGER, total=80)
