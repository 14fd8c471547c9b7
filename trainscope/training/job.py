"""What one training is, whole: its frozen settings name it, so that runs never mix."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from trainscope.data import Dataset, Split
from trainscope.errors import DataError, TaskError
from trainscope.foreign import reason
from trainscope.networks import Network, digest
from trainscope.networks.copies import whole_copy, with_dense_gradients
from trainscope.records import Json, Kind, Pretraining, Pruning
from trainscope.records.origin import ONE_SHOT
from trainscope.records.run import UNKNOWN
from trainscope.task import Classification, Task
from trainscope.task.batches import beside, tensors, working_weight
from trainscope.task.classification import one_label_each
from trainscope.task.modes import eval_mode
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        kind: What is trained, from which weights.
        network: It, before the first step. `run` trains a copy.
        dataset: What it is trained and tested on.
        schedule: The learning rate of every epoch.
        settings: Everything else.
        base: SHA-256 of the base model's weights, or "unknown".
        pruning: What was done to the base model; None for a dense network.
        pretraining: How the base model was trained, where that is known.
        watched: What looks on, by name, so that other measurements are another run.
        notes: What a reader should know, each one sentence.
    """

    kind: Kind
    network: Network
    dataset: Dataset
    schedule: LRSchedule
    settings: Settings = field(default_factory=Settings)
    base: str = UNKNOWN
    pruning: Pruning | None = None
    pretraining: Pretraining | None = None
    watched: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a schedule that only a record may have.

        Raises:
            ScheduleError: An epoch has the learning rate 0.
        """
        replace(self.schedule, recorded=False)

    def frozen(self) -> Json:
        """Return all that decides what comes out, in plain types."""
        action = None if self.pruning is None else self.pruning.action
        plan = None if self.pruning is None or action is None else self.pruning.plan
        return {
            "kind": str(self.kind),
            "architecture": self.network.architecture,
            "data": self.dataset.name,
            **_task_of(self.dataset.task),
            "train samples": len(self.train_split),
            "test samples": len(self.dataset.test),
            "schedule": str(self.schedule),
            "epochs": self.schedule.total,
            "action": None if action is None else f"{action.meaning}, by {action.criterion}",
            **({} if plan in (None, ONE_SHOT) else {"plan": plan}),
            "measured on the way": dict(self.watched),
            **{name.replace("_", " "): value for name, value in self.settings.as_dict().items()},
            "base": self.base,
            "start": digest(self.network.module),
        }

    @property
    def train_split(self) -> Split:
        """Return the training half.

        Raises:
            DataError: There is none.
        """
        if self.dataset.train is None:
            raise DataError(
                f"{self.dataset.name} has no training half, and training needs one: ROOT/train "
                "beside ROOT/val, or a pair of loaders, train and test"
            )
        return self.dataset.train

    def copied(self) -> Job:
        """Return the same job with a copy of the network to train."""
        module = with_dense_gradients(whole_copy(self.network.module))
        return replace(self, network=replace(self.network, module=module))


def key_of(frozen: Json) -> str:
    """Return the twelve hexadecimal digits that name frozen settings."""
    text = json.dumps(frozen, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(old: Json, new: Json) -> str | None:
    """Return in words the first setting that differs, or None."""
    for name in (*new, *(name for name in old if name not in new)):
        before, now = old.get(name), new.get(name)
        if before != now:
            words = {"start": "the weights it starts from", "base": "the base model"}
            if name in words or isinstance(now, dict) or isinstance(before, dict):
                return f"{words.get(name, 'the ' + name)} differ"
            return f"the {name} is {before} there and {now} here"
    return None


def _task_of(task: Task) -> Json:
    """Return a task in plain words; nothing for plain classification, which needs none."""
    if task == Classification():
        return {}
    # A function's address is another one in the process that takes the run up.
    return {"task": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(task))}


@torch.no_grad()
def check_fit(network: Network, dataset: Dataset) -> None:
    """Check that a network takes a data set's batches and does its task.

    Raises:
        DataError: It does not.
    """
    split, task = dataset.test, dataset.task
    name, takes = network.architecture, tuple(network.input_shape)
    if type(task) is Classification and tuple(dataset.input_shape) != takes:
        raise DataError(
            f"{dataset.name} has inputs {_by(dataset.input_shape)} and {name} takes {_by(takes)}: "
            "give the data that it was trained on with --data"
        )
    if not len(split):
        raise DataError(f"{dataset.name} has no test samples")
    batch = split.batch(torch.arange(1))
    weight = working_weight(network.module)
    try:
        with eval_mode(network.module):
            outputs = task.outputs(network.module, beside(batch, weight))
    except TaskError as error:
        raise DataError(f"{name} does not fit {dataset.name}: {error}") from error
    except Exception as error:  # whatever the network's own code raises
        first = reason(error)
        shape = _by(tensors(batch)[0].shape[1:])
        raise DataError(
            f"{name} does not take the inputs {shape} of {dataset.name}: {first}"
        ) from error
    if not one_label_each(task, batch):
        try:
            task.losses(outputs, beside(batch, weight))
        except TaskError as error:
            raise DataError(f"{name} does not fit {dataset.name}: {error}") from error
        return
    assert isinstance(task, Classification)
    logits, classes = task.logits(outputs), dataset.num_classes
    if logits.ndim != 2 or (classes is not None and logits.shape[1] != classes):
        raise DataError(
            f"{dataset.name} has {classes} classes and {name} tells "
            f"{logits.shape[-1]} apart: give the data that it was trained on with --data"
        )


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
