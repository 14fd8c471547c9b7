"""The networks of a diagnosis: files, opened networks and modules that a person brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from trainscope.data import Dataset, Given, RandomInputs
from trainscope.diagnosis.inputs import open_data, open_module
from trainscope.errors import CheckpointError
from trainscope.networks import Network, noticed
from trainscope.networks.forward import check_forward
from trainscope.networks.trusting import open_as_asked

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
    """

    tell: Progress
    arch: str | None = None
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    unsafe_load: bool = False
    part: str | None = None

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
        if isinstance(given, nn.Module):
            return open_module(
                given,
                data,
                input_shape=self.input_shape,
                class_index=class_index,
                download=download,
            )
        base = self._opened(given)
        if self.input_shape is not None:
            check_forward(base.module, self.input_shape, base.architecture)
            base = replace(base, input_shape=self.input_shape)
        return open_data(base, data, class_index=class_index, download=download)

    def network(self, given: Subject, *, like: Network) -> Network:
        """Return a network that is measured on the inputs of another one.

        Raises:
            CheckpointError: It cannot be opened, or gives another number of logits.
        """
        if isinstance(given, nn.Module):
            return noticed(replace(like, module=given, notes=(), before=()))
        opened = self._opened(given)
        if opened.num_classes != like.num_classes:
            raise CheckpointError(
                f"the pruned network gives {opened.num_classes} logits and the dense one "
                f"{like.num_classes}: give two networks of one task"
            )
        return replace(opened, input_shape=like.input_shape)

    def _opened(self, given: str | Path | Network) -> Network:
        if isinstance(given, Network):
            return noticed(given)
        return open_as_asked(
            Path(given),
            self.tell,
            arch=self.arch,
            model=self.model,
            unsafe_load=self.unsafe_load,
            part=self.part,
        )
