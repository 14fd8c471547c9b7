"""The networks of a diagnosis: files, opened networks and modules that a person brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from trainscope.data import Dataset, Given, RandomInputs, is_factory
from trainscope.diagnosis.inputs import (
    fitted,
    is_plain,
    open_data,
    open_module,
    suited,
    tried,
)
from trainscope.errors import CheckpointError
from trainscope.networks import Network, noticed
from trainscope.networks.forward import check_forward
from trainscope.networks.given import given_network
from trainscope.networks.trusting import open_as_asked
from trainscope.task import Classification, Task

Subject = str | Path | Network | nn.Module
"""What can be measured: a checkpoint file, an opened network, or a module."""

Progress = Callable[[str], None]
"""Told, in a few words, what is being done next."""


@dataclass(frozen=True)
class Opening:
    """How networks are opened.

    Attributes:
        tell: Told what a file's own code is about to run.
        arch: The architecture's name, for files.
        model: Or its factory, for files.
        input_shape: The shape of one input, where it is not the architecture's own.
        unsafe_load: Load files with their own code.
        part: Which network, where a file holds several.
        task: What the networks are asked to do; by default classification.
    """

    tell: Progress
    arch: str | None = None
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    unsafe_load: bool = False
    part: str | None = None
    task: Task | None = None

    def network_and_data(
        self,
        given: Subject,
        data: str | Given | None,
        *,
        class_index: Path | None,
        download: bool,
    ) -> tuple[Network, Dataset | RandomInputs]:
        """Return the base network, and the data that it is measured on.

        Raises:
            TrainscopeError: One of them cannot be opened, or they do not fit each other.
        """
        task = self.task or Classification()
        if isinstance(given, nn.Module):
            return open_module(
                given,
                data,
                task,
                input_shape=self.input_shape,
                class_index=class_index,
                download=download,
            )
        early = None
        if data is not None and (not isinstance(data, str) or is_factory(data)):
            early = open_data(data, (), task)
        base = self._opened(given, early)
        if self.input_shape is not None:
            check_forward(base.module, self.input_shape, base.architecture)
            base = replace(base, input_shape=self.input_shape)
        shape = tuple(base.input_shape)
        found = early
        if found is None:
            named = data or base.remembered.data or RandomInputs(shape).name
            found = open_data(named, shape, task, download=download)
        if is_plain(found):
            return fitted(base, found, class_index)
        if not isinstance(found, RandomInputs):
            found = suited(found, base.module)
        return tried(base, found, class_index)

    def network(self, given: Subject, *, like: Network, data: Dataset | RandomInputs) -> Network:
        """Return a network that is measured on the inputs of another one.

        Raises:
            CheckpointError: It cannot be opened, or gives another number of logits.
        """
        if isinstance(given, nn.Module):
            return noticed(replace(like, module=given, notes=(), before=()))
        opened = self._opened(given, data)
        if not is_plain(data):
            opened, _ = tried(opened, data)
        if opened.num_classes != like.num_classes:
            raise CheckpointError(
                f"the pruned network gives {opened.num_classes} logits and the dense one "
                f"{like.num_classes}: give two networks of one task"
            )
        return replace(opened, input_shape=like.input_shape, example=like.example)

    def _opened(self, given: str | Path | Network, data: Dataset | RandomInputs | None) -> Network:
        if isinstance(given, Network):
            return noticed(given)
        trial = None
        if data is not None and not isinstance(data, RandomInputs) and not is_plain(data):
            trial = partial(_on_trial, data=data)
        return open_as_asked(
            Path(given),
            self.tell,
            arch=self.arch,
            model=self.model,
            unsafe_load=self.unsafe_load,
            part=self.part,
            trial=trial,
        )


def _on_trial(module: nn.Module, data: Dataset) -> Network:
    """Try a module of the user's own on the data."""
    return given_network(module, data.first_batch, suited(data, module).task)
