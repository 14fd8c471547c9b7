"""The networks of a diagnosis: files, opened networks and modules that a person brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from trainscope.data import Dataset, Given, RandomInputs, is_factory, is_text
from trainscope.diagnosis.hubs import TextOptions, head_for, hub_of
from trainscope.diagnosis.inputs import (
    fitted,
    is_plain,
    open_data,
    refuse_random,
    suited,
    tried,
)
from trainscope.errors import CheckpointError, DataError
from trainscope.networks import Network
from trainscope.networks.custom import Trial
from trainscope.networks.forward import check_forward
from trainscope.networks.given import brought, given_network
from trainscope.networks.guess_shape import guess_input_shape
from trainscope.networks.hub import Head, hub_of_module, local_folder, task_of
from trainscope.networks.network import Hub
from trainscope.networks.trusting import open_as_asked
from trainscope.task import Classification, Task

Subject = str | Path | Network | nn.Module
"""What can be measured: a checkpoint file, an opened network, or a module."""

Progress = Callable[[str], None]
"""Told, in a few words, what is being done next."""


@runtime_checkable
class SharedProgress(Protocol):
    """Progress that is told, too, how far it is."""

    def __call__(self, doing: str) -> None:
        """Hear what is done next."""

    def share(self, done: float) -> None:
        """Hear how much of it is done, 0 to 1."""


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
        task: What the networks are asked to do; by default what their head is for, else
            classification.
        text: How text is read.
        dtype: In which networks are measured; None for float32, of float64 modules as they are.
        class_index: A file that puts folders of images at the network's outputs.
        download: Fetch what torchvision can fetch.
    """

    tell: Progress
    arch: str | None = None
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    unsafe_load: bool = False
    part: str | None = None
    task: Task | None = None
    text: TextOptions = field(default_factory=TextOptions)
    dtype: torch.dtype | None = None
    class_index: Path | None = None
    download: bool = False

    def network_and_data(
        self, subject: Subject, data: str | Given | None
    ) -> tuple[Network, Dataset | RandomInputs]:
        """Return the base network, and the data that it is measured on.

        Raises:
            TrainscopeError: One of them cannot be opened, or they do not fit each other.
        """
        hub = self._hub_of(subject)
        if hub is not None:
            return self._of_hub(subject, hub, data)
        task = self.task or Classification()
        if isinstance(data, str) and data.startswith("random:"):
            refuse_random(task, data)
        if not isinstance(subject, nn.Module | Network):
            self._check_named(data, task)
        if isinstance(subject, nn.Module):
            return self._of_module(subject, data)
        own = self.model is not None or self.unsafe_load
        if isinstance(subject, str | Path) and is_text(data) and not own:
            self._opened(subject, None)  # what is wrong with the network is said before the text is
        early = None
        if data is not None and (not isinstance(data, str) or self._says_shape(data)):
            early = self._data(data, (), self._data_task(data))
        base = self._opened(subject, early)
        if self.input_shape is not None:
            check_forward(base.module, self.input_shape, base.architecture)
            base = replace(base, input_shape=self.input_shape)
        shape = tuple(base.input_shape)
        source = early
        if source is None:
            named = data or _named(base, task)
            source = open_data(named, shape, task, download=self.download)
        if is_plain(source):
            return fitted(base, source, self.class_index)
        if not isinstance(source, RandomInputs):
            source = suited(source, base.module)
        return tried(base, source, self.class_index)

    def _of_module(
        self, module: nn.Module, data: str | Given | None
    ) -> tuple[Network, Dataset | RandomInputs]:
        """Return a module that a person brings, which is not changed, and its data.

        Raises:
            DataError: There is no data, or it is at fault.
            CheckpointError: The module does not take it, or its outputs do not fit the task.
        """
        if data is None:
            raise DataError(
                "a module does not say what data it takes: give data=loader, or "
                "data='random:1x28x28'"
            )
        folder = isinstance(data, str) and data.startswith("imagefolder:")
        shape = self.input_shape or (guess_input_shape(module) if folder else ())
        source = self._data(data, shape, self._data_task(data))
        if not isinstance(source, RandomInputs):
            source = suited(source, module)
        inner = module.module if isinstance(module, nn.DataParallel) else module
        how = "the module that was given"
        named = Network(inner, type(inner).__name__, (), None, how, hub=hub_of_module(inner))
        network, source = tried(named, source, self.class_index)
        return brought(network, self.dtype), source

    def _data(
        self, data: str | Given, shape: tuple[int, ...], task: Task | None, hub: Hub | None = None
    ) -> Dataset | RandomInputs:
        """Open data, which may be text, for a task."""
        reading = self.text.reading(hub)
        return open_data(data, shape, task, download=self.download, reading=reading)

    def _hub_of(self, subject: Subject) -> Hub | None:
        """Return how transformers describes a network; None where a person says what it is."""
        if self.arch is not None or self.model is not None or self.unsafe_load:
            return None
        return hub_of(subject)

    def _of_hub(
        self, subject: Subject, hub: Hub, data: str | Given | None
    ) -> tuple[Network, Dataset | RandomInputs]:
        """Return a network of transformers' classes, and the data that it is measured on."""
        opened = None if not isinstance(subject, Network) else subject
        if data is None and not isinstance(subject, nn.Module):
            opened = opened or self._opened(subject, None, Head(self.task))
        named = data if data is not None else _named_of_hub(opened, self.task, hub)
        shape = self.input_shape or (() if opened is None else tuple(opened.input_shape))

        def open_it(task: Task) -> Dataset | RandomInputs:
            if isinstance(named, str) and named.startswith("random:"):
                refuse_random(task, named)
            sides = shape or _sides(hub)
            return self._data(named, sides, task, hub)

        source, head = head_for(hub, self.task, open_it)
        if isinstance(subject, nn.Module):
            if isinstance(source, Dataset):
                source = suited(source, subject)
            name = type(subject).__name__
            base = Network(subject, name, (), None, "the module that was given", hub=hub)
            network, source = tried(base, source, self.class_index)
            return brought(network, self.dtype), source
        base = self._opened(subject, None, head)
        if isinstance(source, Dataset):
            source = suited(source, base.module)
        return tried(base, source, self.class_index)

    def _data_task(self, data: str | Given | None) -> Task | None:
        """Return what data is for; None where text says it."""
        return self.task if is_text(data) else self.task or Classification()

    def network(self, subject: Subject, *, like: Network, data: Dataset | RandomInputs) -> Network:
        """Return a network that is measured on the inputs of another one.

        Raises:
            CheckpointError: It cannot be opened, or gives another number of logits.
        """
        if isinstance(subject, nn.Module):
            return brought(replace(like, module=subject, notes=(), before=()), self.dtype)
        opened = self._opened(subject, data, Head(self.task, like.num_classes))
        if not is_plain(data) or opened.hub is not None:
            opened, _ = tried(opened, data)
        if opened.num_classes != like.num_classes:
            raise CheckpointError(
                f"the pruned network gives {opened.num_classes} logits and the dense one "
                f"{like.num_classes}: give two networks of one task"
            )
        return replace(opened, input_shape=like.input_shape, example=like.example)

    def _check_named(self, data: str | Given | None, task: Task) -> None:
        """Refuse a network of the user's own for a task whose data nobody names.

        Raises:
            DataError: It is one.
        """
        own = self.model is not None or self.unsafe_load
        if data is None and own and type(task) is not Classification:
            raise DataError(
                f"a network of your own is tried on a batch of {type(task).__name__}, and no data "
                "is named: give --data, like --data package.module:factory"
            )

    def _says_shape(self, data: str) -> bool:
        """Tell whether data is opened before a network, whose inputs it may show."""
        if is_factory(data) or is_text(data):
            return True
        own = self.model is not None or self.unsafe_load
        return own and not data.startswith("imagefolder:")

    def _opened(
        self,
        subject: str | Path | Network,
        data: Dataset | RandomInputs | None,
        head: Head | None = None,
    ) -> Network:
        if isinstance(subject, Network):
            return brought(subject, self.dtype)
        shape = None
        if self.model is not None or self.unsafe_load:  # nobody else says what it takes
            shape = self.input_shape
            if shape is None and data is not None and is_plain(data):
                shape = data.shape if isinstance(data, RandomInputs) else data.input_shape
        return open_as_asked(
            local_folder(subject),
            self.tell,
            arch=self.arch,
            model=self.model,
            unsafe_load=self.unsafe_load,
            part=self.part,
            input_shape=shape,
            trial=trial_on(data),
            head=head,
            dtype=self.dtype or torch.float32,
        )


def _named_of_hub(base: Network | None, task: Task | None, hub: Hub) -> str:
    """Return the data that a network of transformers is measured on where nobody names any.

    Raises:
        DataError: There is none, or a file names code of somebody's.
    """
    if base is not None and base.remembered.data is not None:
        return _named(base, task or task_of(hub))
    images = base is not None and base.example is None and len(base.input_shape) == 3
    if base is not None and images:
        return RandomInputs(tuple(base.input_shape)).name
    raise DataError(
        "a network that takes tokens is measured on text: give --data text:FILE, or --data "
        "package.module:factory for batches of your own"
    )


def _sides(hub: Hub) -> tuple[int, ...]:
    """Return the shape of images that a configuration says, nothing where it says none."""
    side, channels = hub.config.get("image_size"), hub.config.get("num_channels", 3)
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    shape = (channels, *sides)
    return shape if all(type(each) is int and each > 0 for each in shape) else ()


def _named(base: Network, task: Task) -> str:
    """Return the data that a network is measured on where nobody names any.

    Raises:
        DataError: Its file names code of somebody's, or nobody can draw the targets.
    """
    kept = base.remembered.data
    if kept is not None and is_factory(kept):
        # A file may not choose what is imported: only the person who opens it may.
        raise DataError(
            f"the file says that its data is made by {kept}; where you trust that code, say "
            f"--data {kept}"
        )
    if kept is None:
        refuse_random(task, "")
    return kept or RandomInputs(tuple(base.input_shape)).name


def trial_on(data: Dataset | RandomInputs | None) -> Trial | None:
    """Return how a network of the user's own is tried on data, where that is no plain pair."""
    if data is None or isinstance(data, RandomInputs) or is_plain(data):
        return None
    return partial(_on_trial, data=data)


def _on_trial(module: nn.Module, data: Dataset) -> Network:
    """Try a module of the user's own on the data."""
    return given_network(module, data.first_batch, suited(data, module).task)
