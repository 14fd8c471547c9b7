"""Networks of transformers: their folder or file, the task of their head, text as their data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainscope.data import Dataset, RandomInputs, Reading, Split
from trainscope.errors import CheckpointError, DataError
from trainscope.networks import Network
from trainscope.networks.hub import Head, hub_of_module, is_headed, local_folder, task_of
from trainscope.networks.network import Hub
from trainscope.networks.readers import contents_of
from trainscope.networks.readers.folder import config_in, is_config
from trainscope.task import Classification, Task
from trainscope.task.batches import targets
from trainscope.task.classification import IGNORED

LABELS_READ = 4096
"""Samples of a person's own data whose labels tell the number of classes of a new head."""


def hub_of(given: object) -> Hub | None:
    """Return how transformers describes a network, None where it is none of its own.

    Args:
        given: A folder, a file that trainscope wrote, an opened network or a module.

    Raises:
        CheckpointError: The folder's configuration is damaged.
    """
    if isinstance(given, Network):
        return given.hub
    if isinstance(given, nn.Module):
        return hub_of_module(given)
    if not isinstance(given, str | Path):
        return None
    path = local_folder(given)
    if path.is_dir():
        config = config_in(path)
        return Hub(config, str(path.absolute())) if is_config(config) else None
    try:
        return contents_of(path).hub
    except CheckpointError:  # said where it is opened
        return None


@dataclass(frozen=True)
class TextOptions:
    """How a person wants text to be read.

    Attributes:
        length: Tokens of a sequence.
        tokenizer: The folder of the tokenizer.
    """

    length: int | None = None
    tokenizer: Path | None = None

    def reading(self, hub: Hub | None) -> Reading:
        """Return how text becomes the batches of a network.

        Raises:
            DataError: There is no folder of that name.
        """
        if self.tokenizer is not None and not self.tokenizer.is_dir():
            raise DataError(f"there is no folder {self.tokenizer}: --tokenizer takes one")
        folder = self.tokenizer or (Path(hub.folder) if hub is not None and hub.folder else None)
        config = {} if hub is None else hub.config
        return Reading(folder, _whole(config, "vocab_size"), _whole(config, *_CONTEXT), self.length)


_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")


def _whole(config: Any, *names: str) -> int | None:
    """Return the first of some settings that is a number of things."""
    found = (config.get(name) for name in names)
    return next((x for x in found if type(x) is int and x > 0), None)


def head_for(
    hub: Hub, asked: Task | None, open_data: Callable[[Task], Dataset | RandomInputs]
) -> tuple[Dataset | RandomInputs, Head]:
    """Return the data of a network, and the head that it needs.

    Args:
        hub: How transformers describes it.
        asked: The task that a person names; by default that of the network's head.
        open_data: Opens the data for a task.

    Raises:
        TrainscopeError: The head's task is not known, or the data cannot be opened.
    """
    task = asked or task_of(hub)
    data = open_data(task)
    if isinstance(data, RandomInputs) or not isinstance(task, Classification):
        return data, Head(asked)
    if is_headed(hub, asked):
        return data, Head(asked)
    return data, Head(asked, data.num_classes or _classes_in(data))


def _classes_in(data: Dataset) -> int:
    """Return the number of classes that labels show, where nobody says it."""
    halves: list[Split] = [half for half in (data.train, data.test) if half is not None]
    most = 1
    for half in halves:
        batch = half.batch(torch.arange(min(len(half), LABELS_READ)))
        labels = targets(batch, getattr(data.task, "inputs", None))
        if isinstance(labels, Tensor) and labels.numel():
            counted = labels[labels != IGNORED]
            most = max(most, int(counted.max()) + 1 if counted.numel() else 1)
    return max(2, most)
