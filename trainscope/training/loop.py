"""The one training loop: pretraining, retraining and scratch training all go through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count, islice
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.data import Split
from trainscope.pace import tick
from trainscope.records.epoch import BEFORE_CLIPPING, EpochRecord
from trainscope.sparsify.masks import hold_masks, masks_of
from trainscope.task import Batch, Classification, Task
from trainscope.task.task import ready
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
    task: Task | None = None,
    steps_per_epoch: int | None = None,
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
        task: What the network is asked to do; by default classification.
        steps_per_epoch: Steps after which an epoch ends; by default when all samples were passed.
        stepper: A running optimizer to go on with; a fresh one otherwise.
        start: Epochs already done.
        stop: The epoch to end after; by default the schedule's last.
        observers: What looks on.
        on_epoch: Called after every epoch.
        on_step: Called after every step.

    Returns:
        One record an epoch, from `start` on.
    """
    settings, task = settings or Settings(), task or Classification()
    ready(task)  # before an epoch is spent
    stepper = stepper or Stepper(network, settings, schedule.lr(start), task)
    device = stepper.weight.device
    steps = steps_of(len(train_split), settings.batch_size, steps_per_epoch)
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
            loss = _epoch(stepper, train_split, epoch, steps, observers, on_step)
            found = evaluate(network, test_split, task)
            record = EpochRecord(
                epoch=epoch + 1,
                lr=schedule.lr(epoch),
                train_loss=loss,
                test_loss=found.loss,
                test_metric=found.metric,
                metric=task.metric,
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
    steps: int,
    observers: Sequence[Observer],
    on_step: OnStep | None,
) -> float | None:
    settings = stepper.settings
    torch.manual_seed(_seed(settings, epoch))  # dropout draws from the process's generator
    stepper.network.train()
    total = torch.zeros((), dtype=torch.float64, device=stepper.weight.device)
    seen = 0

    def look() -> None:
        for observer in observers:
            observer.observe(BEFORE_CLIPPING)

    # Without clipping the optimizer's own hook sees the same gradient.
    before_clipping = look if observers and settings.clip is not None else None
    for done, (size, batch) in enumerate(training_batches(split, settings, epoch, steps), 1):
        total += size * stepper.step(batch, before_clipping)
        seen += size
        tick(forward=size, backward=size)
        if on_step is not None:
            on_step(epoch, done, steps)
    mean = float(total) / max(seen, 1)
    return mean if math.isfinite(mean) else None


def training_batches(
    split: Split, settings: Settings, epoch: int, steps: int
) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of one epoch of training, augmented, each with its number of samples.

    Args:
        split: What is trained on.
        settings: Batch size, augmentation and seed.
        epoch: Which, from 0 on.
        steps: How many; all samples are passed before one comes again.
    """
    generator = torch.Generator().manual_seed(_seed(settings, epoch))
    augment = split.augment if settings.augment else None
    for indices in _drawn(len(split), settings.batch_size, generator, steps):
        batch = split.batch(indices)
        if augment is not None:  # of images alone, which come in pairs
            batch = (augment(batch[0], generator), *batch[1:])
        yield len(indices), batch


def _seed(settings: Settings, epoch: int) -> int:
    return (settings.seed * 1_000_003 + epoch) % 2**63


def _drawn(samples: int, size: int, generator: torch.Generator, steps: int) -> Iterator[Tensor]:
    """Yield the indices of so many batches; all samples are passed before one comes again."""
    passes = (_batches(samples, size, generator) for _ in count())
    return islice(chain.from_iterable(passes), steps)


def _batches(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    for indices in torch.split(torch.randperm(samples, generator=generator), size):
        if len(indices) > 1 or samples == 1 or size == 1:  # batch norm cannot train on one sample
            yield indices


def steps_of(samples: int, size: int, most: int | None = None) -> int:
    """Return the steps of an epoch: as many as pass all samples, or what is asked for."""
    whole, rest = divmod(samples, size)
    steps = whole + (rest > 1 or samples == 1)
    return steps if most is None else most
