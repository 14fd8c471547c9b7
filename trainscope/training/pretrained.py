"""A network trained from random weights in one call, without a folder to go on from."""

from __future__ import annotations

from collections.abc import Callable

from trainscope.data import Dataset
from trainscope.errors import DataError
from trainscope.networks import Network, Remembered, flops
from trainscope.networks.threads import suited_threads
from trainscope.records import EpochRecord
from trainscope.task.modes import evaluating
from trainscope.training.evaluation import Evaluation
from trainscope.training.loop import train
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings
from trainscope.training.weights import fresh_network


def pretrained_network(
    architecture: str,
    dataset: Dataset,
    schedule: LRSchedule,
    settings: Settings,
    *,
    on_epoch: Callable[[EpochRecord, Evaluation], None] | None = None,
) -> Network:
    """Train a network of a known architecture, and return it with how it was trained.

    Args:
        architecture: Its name; random weights are drawn from the seed of the settings.
        dataset: What it is trained and tested on.
        schedule: The learning rate of every epoch.
        settings: Everything else.
        on_epoch: Told of every epoch.

    Raises:
        DataError: The data has no training half.
    """
    if dataset.train is None:
        raise DataError(f"{dataset.name} has no training half: give ROOT/train and ROOT/val")
    module = fresh_network(architecture, dataset.num_classes, settings.seed)
    with suited_threads(flops(module, dataset.input_shape)):
        records = train(module, dataset.train, dataset.test, schedule, settings, on_epoch=on_epoch)
    return Network(
        evaluating(module),
        architecture,
        dataset.input_shape,
        dataset.num_classes,
        remembered=Remembered(
            dataset.name,
            str(schedule),
            schedule.total,
            settings.seed,
            records[-1].test_accuracy,
        ),
    )
