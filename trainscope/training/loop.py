"""The one training loop: pretraining, retraining and scratch training all go through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.data import Split
from trainscope.records.epoch import BEFORE_CLIPPING, EpochRecord
from trainscope.sparsify.masks import hold_masks, masks_of
from trainscope.training.evaluation import Evaluation, evaluate
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings
from trainscope.training.stepper import Stepper, make_optimizer

__all__ = ["Evaluation", "Observer", "Settings", "Stepper", "evaluate", "make_optimizer", "train"]

OnEpoch = Callable[[EpochRecord, Evaluation], None]
"""Called at the end of every epoch with its record and the evaluation behind it."""

OnStep = Callable[[int, int, int], None]
"""Called after every step with the epochs done, the steps done in this epoch, and their number."""


class Observer(Protocol):
    """What looks on while a network trains, and changes nothing: `trainscope.probes.hooks`."""

    def attach(
        self, network: nn.Module, optimizer: Optimizer, *, step: int, steps_per_epoch: int
    ) -> object:
        """Begin: `step` steps are done."""

    def observe(self, moment: str) -> None:
        """Look at the gradient that is there."""

    def detach(self) -> None:
        """End, whatever happened."""


def train(
    network: nn.Module,
    train_split: Split,
    test_split: Split,
    schedule: LRSchedule,
    settings: Settings | None = None,
    *,
    stepper: Stepper | None = None,
    start: int = 0,
    stop: int | None = None,
    observers: Sequence[Observer] = (),
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> list[EpochRecord]:
    """Train a network in place and return what happened, epoch by epoch.

    Every random choice of epoch e is drawn from (seed, e) alone, so a training taken up at an epoch
    with the weights and optimizer state of that moment goes on bit for bit as if it had never
    stopped (on the CPU, with as many threads). Masks are enforced after every step. The random
    states of the process are left as they were.

    Args:
        network: Trained in place, on the device where it is.
        train_split: The training half.
        test_split: The test half, measured after every epoch.
        schedule: The learning rate of every epoch, and how many there are.
        settings: Everything else.
        stepper: A running optimizer to go on with; a fresh one otherwise.
        start: Epochs already done.
        stop: The epoch to end after; by default the schedule's last.
        observers: What looks on.
        on_epoch: Called after every epoch.
        on_step: Called after every step.

    Returns:
        One record an epoch, from `start` on.
    """
    settings = settings or Settings()
    stepper = stepper or Stepper(network, settings, schedule.lr(start))
    device = stepper.weight.device
    size = settings.batch_size
    steps = _steps(len(train_split), size)
    records: list[EpochRecord] = []
    with ExitStack() as held:
        held.enter_context(torch.enable_grad())  # also for a caller who has it off
        held.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if masks_of(network):
            held.callback(hold_masks(network, stepper.optimizer).remove)
        for observer in observers:
            held.callback(observer.detach)
            observer.attach(network, stepper.optimizer, step=start * steps, steps_per_epoch=steps)
        for epoch in range(start, schedule.total if stop is None else stop):
            begun = time.perf_counter()
            stepper.set_lr(schedule.lr(epoch))
            loss = _epoch(stepper, train_split, epoch, observers, on_step)
            found = evaluate(network, test_split)
            record = EpochRecord(
                epoch=epoch + 1,
                lr=schedule.lr(epoch),
                train_loss=loss,
                test_loss=found.loss,
                test_metric=found.accuracy,
                seconds=time.perf_counter() - begun,
            )
            records.append(record)
            if on_epoch is not None:
                on_epoch(record, found)
    return records


def _epoch(
    stepper: Stepper,
    split: Split,
    epoch: int,
    observers: Sequence[Observer],
    on_step: OnStep | None,
) -> float | None:
    settings = stepper.settings
    seed = (settings.seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(seed)  # dropout draws from the process's generator
    generator = torch.Generator().manual_seed(seed)
    augment = split.augment if settings.augment else None
    stepper.network.train()
    total = torch.zeros((), dtype=torch.float64, device=stepper.weight.device)
    seen, steps = 0, _steps(len(split), settings.batch_size)

    def look() -> None:
        for observer in observers:
            observer.observe(BEFORE_CLIPPING)

    # Without clipping the optimizer's own hook sees the same gradient.
    before_clipping = look if observers and settings.clip is not None else None
    for done, indices in enumerate(_batches(len(split), settings.batch_size, generator), 1):
        inputs, labels = split.batch(indices)
        if augment is not None:
            inputs = augment(inputs, generator)
        total += len(indices) * stepper.step(inputs, labels, before_clipping)
        seen += len(indices)
        if on_step is not None:
            on_step(epoch, done, steps)
    mean = float(total) / max(seen, 1)
    return mean if math.isfinite(mean) else None


def _batches(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    for indices in torch.split(torch.randperm(samples, generator=generator), size):
        if len(indices) > 1 or samples == 1 or size == 1:  # batch norm cannot train on one sample
            yield indices


def _steps(samples: int, size: int) -> int:
    whole, rest = divmod(samples, size)
    return whole + (rest > 1 or samples == 1)
