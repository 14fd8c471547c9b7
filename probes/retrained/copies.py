"""Copies of a network, retrained at one learning rate each, shared out among processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from trainscope.data import Split
from trainscope.networks.copies import whole_copy, with_dense_gradients
from trainscope.pace import INTERRUPTIONS, cut_short
from trainscope.probes.processes.ranks import Ranks, present
from trainscope.probes.retrained.twins import Twins
from trainscope.records.epoch import EpochRecord
from trainscope.task import Task
from trainscope.training.evaluation import Evaluation, evaluate
from trainscope.training.loop import steps_of, train
from trainscope.training.lora import add_adapters
from trainscope.training.schedule import constant
from trainscope.training.settings import Settings

Run = list[tuple[EpochRecord, Evaluation]]
"""One retraining: every epoch, and the test after it."""
_Done = dict[int, tuple[list[EpochRecord], list[Evaluation]]]
_Look = Callable[[nn.Module, EpochRecord], None]


@dataclass(frozen=True)
class Trial:
    """How copies are retrained.

    Attributes:
        train: The training half.
        test: What is tested on, before the first step and after every epoch.
        task: What the network is asked to do.
        settings: The optimizer and the rest, the seed included.
        epochs: How many.
        steps_per_epoch: Steps after which one ends; by default when all samples were passed.
    """

    train: Split
    test: Split
    task: Task
    settings: Settings
    epochs: int
    steps_per_epoch: int | None = None

    def tested(self, network: nn.Module) -> Evaluation:
        """Test a network."""
        return evaluate(network, self.test, self.task)

    def trained(self, network: nn.Module, lr: float, look: _Look | None = None) -> Run:
        """Retrain a copy at one learning rate.

        Args:
            network: Not touched.
            lr: The learning rate, constant.
            look: Shown the copy and the record after every epoch, before the next one.
        """
        epochs: Run = []
        copied = _apart(with_dense_gradients(whole_copy(network)))
        if self.settings.lora is not None:
            add_adapters(copied, self.settings.lora, seed=self.settings.seed)

        def on_epoch(record: EpochRecord, found: Evaluation) -> None:
            epochs.append((record, found))
            if look is not None:
                look(copied, record)

        train(
            copied,
            self.train,
            self.test,
            constant(lr, self.epochs),
            self.settings,
            task=self.task,
            steps_per_epoch=self.steps_per_epoch,
            on_epoch=on_epoch,
        )
        return epochs


def retrain_copies(
    network: nn.Module, trial: Trial, lrs: Sequence[float]
) -> tuple[Evaluation, list[Run]]:
    """Test a network, and retrain a copy at each learning rate, each in one process of a job.

    Interrupted after the test, it returns the learning rates that are done, where that is wanted
    (see `pace.cut_short`).
    """
    ranks = present()
    done: _Done = {}
    for job, lr in enumerate([None, *lrs]):  # the test is the last process's
        if (job - 1) % ranks.count != ranks.index:
            continue
        if lr is None:
            done[job] = [], [trial.tested(network)]
            continue
        try:
            run = trial.trained(network, lr)
        except INTERRUPTIONS as error:
            cut_short(error)  # only one process takes parts, and it tests first
            break
        done[job] = [record for record, _ in run], [found for _, found in run]
    if ranks.count > 1:
        done = _exchanged(done, trial.task, ranks)
    runs = [list(zip(*done[job], strict=True)) for job in range(1, len(done))]
    return done[0][1][0], runs


def retrain_twins(
    network: nn.Module, twin: nn.Module, twins: Twins, trial: Trial, lrs: Sequence[float]
) -> list[tuple[Evaluation, list[Run]]]:
    """Return what `retrain_copies` finds of a network and of its twin, with the training of one.

    Args:
        network: Its copies are trained.
        twin: Has other running statistics of batch norms.
        twins: The pair.
        trial: How to retrain.
        lrs: The learning rates.

    Raises:
        NoTwinsError: In training they do not behave as twins.
    """
    starts = [trial.tested(which) for which in (network, twin)]
    each = steps_of(len(trial.train), trial.settings.batch_size, trial.steps_per_epoch)
    runs: list[tuple[Run, Run]] = []
    for lr in lrs:
        beside: Run = []

        def look(trained: nn.Module, record: EpochRecord, beside: Run = beside) -> None:
            with twins.lent(trained, record.epoch * each):
                found = trial.tested(trained)
            own = replace(record, test_loss=found.loss, test_metric=found.metric)
            beside.append((own, found))

        try:
            runs.append((trial.trained(network, lr, look), beside))
        except INTERRUPTIONS as error:
            cut_short(error)
            break
    return [(start, [run[i] for run in runs]) for i, start in enumerate(starts)]


def _exchanged(done: _Done, task: Task, ranks: Ranks) -> _Done:
    """Return what all processes did; tasks, which may be anybody's objects, do not travel."""
    untold: Any = None
    bare = {
        job: (records, [replace(found, task=untold) for found in tested])
        for job, (records, tested) in done.items()
    }
    return {
        job: (records, [replace(found, task=task) for found in tested])
        for there in ranks.all(bare)
        for job, (records, tested) in there.items()
    }


def _apart(network: nn.Module) -> nn.Module:
    """Return a network whose batch norms wait for no other process, which trains a copy of its own.

    Changed in place.
    """
    for module in network.modules():
        if type(module) is nn.SyncBatchNorm:
            setattr(module, "__class__", _OwnBatchNorm)  # noqa: B010  # no type of its own for mypy
    return network


class _OwnBatchNorm(nn.BatchNorm1d):
    def _check_input_dim(self, input: Tensor) -> None:
        """Take inputs of any number of axes, as SyncBatchNorm does."""
