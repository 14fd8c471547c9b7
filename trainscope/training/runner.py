"""Runs a job in a folder, and takes it up again after whatever stopped it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trainscope.networks import Remembered, digest, flops, parameters, save_checkpoint
from trainscope.networks.threads import suited_threads
from trainscope.records import EpochRecord, Run, RunStatus, Taken
from trainscope.records.run import FILE_NAME
from trainscope.training.folder import CHECKPOINT, finished, held
from trainscope.training.job import Job, check_fit, key_of
from trainscope.training.loop import Evaluation, Observer, OnStep, Stepper, evaluate, train
from trainscope.training.lora import add_adapters, merge_adapters, trained_parameters
from trainscope.training.state import STATE, State, load_state, save_state
from trainscope.version import VERSION

TRAINING_PASSES = 3
"""Forward passes that one training sample costs: backward counts as two."""


class Collector(Observer, Protocol):
    """An observer that keeps what it measured until it is asked."""

    def collect(self) -> list[Taken]:
        """Return what was measured since the last call, and forget it."""


@dataclass(frozen=True)
class Watch:
    """What looks on while a job runs.

    Attributes:
        collectors: Measure; what they find goes into the Run.
        on_start: Called once with the epochs already done and the epochs in all.
        on_epoch: Called after every epoch.
        on_state: Called with the state after every epoch, once it is kept, and with the one that a
            training is taken up from.
        on_step: Called after every step with the epochs done, the steps done in this epoch, and
            their number.
    """

    collectors: Sequence[Collector] = ()
    on_start: Callable[[int, int], None] | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None
    on_step: OnStep | None = None
    on_state: Callable[[State], None] | None = None


def run_job(
    job: Job, folder: Path, *, device: str = "cpu", watch: Watch | None = None, wait: bool = False
) -> Run:
    """Train a job's network in a folder, or go on where it stopped, and return its Run.

    After every epoch the whole state is written in one step, so that a run killed at any moment
    loses at most the epoch it was in; called again it ends, on the CPU, with the same bits. A run
    that is done is not repeated. Left behind are `settings.json`, `run.json` and `checkpoint.pt`.

    Args:
        job: What to train; its network is not touched.
        folder: Made where it is missing.
        device: Where to train, as torch names it.
        watch: What looks on.
        wait: Wait for another process that is at work in the folder, rather than be refused.

    Returns:
        The Run; "interrupted" after Ctrl-C, with the epochs done till then, which are kept.

    Raises:
        RecordError: The folder holds another run.
        DataError: The data does not fit the network.
    """
    watch = watch or Watch()
    check_fit(job.network, job.dataset)
    with held(folder, job.frozen(), wait=wait):
        done = finished(folder)
        if done is not None:
            (folder / STATE).unlink(missing_ok=True)  # killed between its last two steps
            return done
        with suited_threads(flops(job.network.module, job.network.inputs)):
            return _run(job, folder, device, watch)


def _run(job: Job, folder: Path, device: str, watch: Watch) -> Run:
    training = Training(job.copied(), folder / STATE, device, watch)
    status = RunStatus.FINISHED
    try:
        training.go(job.schedule.total)
    except KeyboardInterrupt:
        status = RunStatus.INTERRUPTED
    state = load_state(folder / STATE, training.key)
    if state is None:  # stopped before the first epoch was over
        raise KeyboardInterrupt
    run = write_results(job, state, folder, status, device)
    if status is RunStatus.FINISHED:
        (folder / STATE).unlink()
    return run


class Training:
    """A job under way; its state is written to one file after every epoch.

    Args:
        job: Its network is trained in place.
        path: The file of its state; gone on from where it exists.
        device: Where to train.
        watch: What looks on.
    """

    def __init__(self, job: Job, path: Path, device: str, watch: Watch) -> None:
        self.job, self.path, self.watch = job, path, watch
        self.key = key_of(job.frozen())
        self.module = _trained(job).to(device)
        self.stepper = Stepper(self.module, job.settings, job.schedule.lr(0), job.dataset.task)
        found = load_state(path, self.key)
        if found is None:
            self.state = self.fresh_state()
        else:
            self.take_up(found)

    def fresh_state(self) -> State:
        """Return the state before the first step."""
        found = evaluate(self.module, self.job.dataset.test, self.job.dataset.task).metric
        network, engine = self.module.state_dict(), self.stepper.state_dict()
        metric = self.job.dataset.task.metric
        return State(self.key, 0, network, engine, found, (), (), metric)

    def take_up(self, state: State) -> None:
        """Go on from a state."""
        self.state = state
        self.module.load_state_dict(state.network)
        self.stepper.load_state_dict(dict(state.engine))

    def go(self, stop: int) -> None:
        """Train up to an epoch."""
        if self.watch.on_start is not None:
            self.watch.on_start(self.state.epoch, stop)
        if self.watch.on_state is not None and self.state.epoch:
            self.watch.on_state(self.state)
        train_job(
            self.job,
            self.module,
            stepper=self.stepper,
            start=self.state.epoch,
            stop=stop,
            observers=self.watch.collectors,
            on_epoch=self._epoch_over,
            on_step=self.watch.on_step,
        )

    def _epoch_over(self, record: EpochRecord, _: Evaluation) -> None:
        taken = [each for collector in self.watch.collectors for each in collector.collect()]
        self.state = State(
            key=self.key,
            epoch=record.epoch,
            network=self.module.state_dict(),
            engine=self.stepper.state_dict(),
            start_metric=self.state.start_metric,
            records=(*self.state.records, record),
            measurements=(*self.state.measurements, *taken),
            metric=self.state.metric,
        )
        save_state(self.path, self.state)
        if self.watch.on_epoch is not None:
            self.watch.on_epoch(record)
        if self.watch.on_state is not None:
            self.watch.on_state(self.state)


def write_results(job: Job, state: State, folder: Path, status: RunStatus, device: str) -> Run:
    """Write a state as `checkpoint.pt` and `run.json`, in this order, and return the Run.

    A training that diverged leaves no checkpoint: weights that are no numbers cannot be opened.
    """
    module = _trained(job.copied())
    module.load_state_dict(state.network)
    trained = trained_parameters(module)
    if job.settings.lora is not None:
        merge_adapters(module)
    module.cpu().eval()
    diverged = diverged_in(state)
    if diverged is not None and status is RunStatus.FINISHED:
        status = RunStatus.DIVERGED
    schedule = job.schedule
    network = replace(
        job.network,
        module=module,
        remembered=Remembered(
            data=job.dataset.name,
            schedule=str(schedule),
            epochs=state.epoch,
            seed=job.settings.seed,
            accuracy=_accuracy(job, state),
        ),
    )
    cost = flops(module, network.inputs)
    run = Run(
        kind=job.kind,
        status=status,
        epochs=state.records,
        schedule=str(schedule),
        total=schedule.total,
        architecture=network.architecture,
        data=job.dataset.name,
        base=job.base,
        start=digest(job.network.module),
        end=digest(module),
        pruning=job.pruning,
        pretraining=job.pretraining,
        settings={n: v for n, v in job.settings.as_dict().items() if n != "seed"},
        seed=job.settings.seed,
        parameters=parameters(module),
        trained_parameters=trained,
        flops_per_sample=cost,
        flops=TRAINING_PASSES * cost * len(job.train_split) * state.epoch,
        start_metric=state.start_metric,
        metric=job.dataset.task.metric,
        measurements=state.measurements,
        environment=_environment(device),
        notes=(*job.notes, *_notes(diverged)),
    )
    if diverged is None:
        save_checkpoint(folder / CHECKPOINT, network)
    else:  # one that an interrupted call left is not the end of this training
        (folder / CHECKPOINT).unlink(missing_ok=True)
    run.save(folder / FILE_NAME)
    return run


def train_job(job: Job, module: nn.Module, **options: Any) -> None:
    """Train a network on what a job says, in place; the options are those of `loop.train`."""
    data = job.dataset
    train(module, job.train_split, data.test, job.schedule, job.settings, task=data.task, **options)


def _trained(job: Job) -> nn.Module:
    """Return a job's network, with its adapters where those are trained in the weights' place."""
    module = job.network.module
    if job.settings.lora is not None:
        add_adapters(module, job.settings.lora, seed=job.settings.seed)
    return module


def _accuracy(job: Job, state: State) -> float | None:
    """Return the test accuracy at the end, percent; None where the task has another metric."""
    if not job.dataset.task.metric.is_accuracy:
        return None
    return state.records[-1].test_metric if state.records else state.start_metric


def diverged_in(state: State) -> int | None:
    """Return the epoch in which a training diverged, None where it did not.

    The loss shows it but for the last step, whose weights no loss was taken of.
    """
    lost = next((r.epoch for r in state.records if r.train_loss is None), None)
    if lost is not None:
        return lost
    floating = (value for value in state.network.values() if value.is_floating_point())
    return None if all(bool(value.isfinite().all()) for value in floating) else state.epoch


def _notes(diverged: int | None) -> list[str]:
    return [] if diverged is None else [f"Training diverged in epoch {diverged}."]


def _environment(device: str) -> dict[str, str]:
    return {
        "trainscope": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
