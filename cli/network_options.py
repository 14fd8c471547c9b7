"""Options that say a network and its data, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainscope.cli.options import Checkpoint, task_option, together

if TYPE_CHECKING:
    from trainscope.data import Dataset
    from trainscope.networks import Network

Command = TypeVar("Command", bound=Callable[..., Any])
DATA_HELP = (
    "digits, mnist:ROOT, fashionmnist:ROOT, cifar10:ROOT, cifar100:ROOT, imagefolder:ROOT, or "
    "package.module:factory for your own loaders."
)


@dataclass(frozen=True)
class NetworkOptions:
    """How a checkpoint is opened, and what it is measured or trained on.

    Attributes:
        arch: As `diagnosis.request.MeasureRequest` has it, like the others.
        model: See there.
        part: See there.
        unsafe_load: See there.
        data: See there.
        class_index: See there.
        download: See there.
        sequence_length: See there.
        tokenizer: See there.
        task: Its name.
    """

    arch: str | None = None
    model: str | None = None
    part: str | None = None
    unsafe_load: bool = False
    data: str | None = None
    class_index: Path | None = None
    download: bool = False
    sequence_length: int | None = None
    tokenizer: Path | None = None
    task: str | None = None

    def open(self, checkpoint: Path) -> tuple[Network, Dataset]:
        """Open a checkpoint and the labelled data that it is trained on.

        Raises:
            TrainscopeError: One of them cannot be opened, or there is nothing to train on.
        """
        from trainscope.cli.printing import remark
        from trainscope.data import RandomInputs
        from trainscope.diagnosis.hubs import TextOptions
        from trainscope.diagnosis.opening import Opening
        from trainscope.errors import DataError
        from trainscope.task import find_task

        opening = Opening(
            remark,
            arch=self.arch,
            model=self.model,
            unsafe_load=self.unsafe_load,
            part=self.part,
            task=None if self.task is None else find_task(self.task),
            text=TextOptions(self.sequence_length, self.tokenizer),
            class_index=self.class_index,
            download=self.download,
        )
        network, dataset = opening.network_and_data(checkpoint, self.data)
        if not isinstance(dataset, RandomInputs):
            return network, dataset
        if self.data is not None:
            raise DataError(
                f"{self.data} has no labels to train on: give a labelled set with --data"
            )
        raise DataError(
            "the checkpoint does not remember what it was trained on: name it with --data, like "
            "--data cifar10:ROOT"
        )


@dataclass(frozen=True)
class NewNetworkOptions:
    """A network that is trained from random weights, and on what.

    Attributes:
        arch: The architecture's name.
        model: Or its factory.
        data: As `--data` takes it.
        input_shape: "CxHxW" to which a folder of images is resized.
        download: Fetch the data where it is missing.
        task: What the network is asked to do, by its name.
    """

    data: str
    arch: str | None = None
    model: str | None = None
    input_shape: str | None = None
    download: bool = False
    task: str | None = None

    @property
    def name(self) -> str:
        """The architecture's name, or its factory's."""
        return self.arch or str(self.model)

    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input, (C, H, W).

        Raises:
            CheckpointError: No architecture is of that name, or not exactly one is named.
            DataError: The shape is no shape.
        """
        from trainscope.errors import CheckpointError, DataError
        from trainscope.networks import from_factory
        from trainscope.networks.registry import architecture

        if (self.arch is None) == (self.model is None):
            raise CheckpointError(
                "name the architecture once: --arch resnet20 or --model PACKAGE:NAME"
            )
        if self.arch is not None:
            shape: tuple[int, ...] = architecture(self.arch).input_shape
        else:
            assert self.model is not None
            from_factory(self.model)
            shape = (3, 224, 224)
        if self.input_shape is None:
            return shape
        sides = self.input_shape.split("x")
        if len(sides) != 3 or not all(s.isascii() and s.isdigit() and int(s) for s in sides):
            raise DataError(
                f"--input-shape '{self.input_shape}' is not of the form CxHxW, like 3x32x32"
            )
        return tuple(int(side) for side in sides)

    def open_data(self) -> Dataset:
        """Return the labelled data.

        Raises:
            CheckpointError: As `shape`.
            DataError: It is not there, or it is random inputs, which nobody can train on.
        """
        from trainscope.data import RandomInputs, load
        from trainscope.errors import DataError
        from trainscope.task import find_task

        shape = self.shape()
        asked = None if self.task is None else find_task(self.task)
        data = load(self.data, shape, download=self.download, task=asked)
        if isinstance(data, RandomInputs):
            raise DataError(
                f"{self.data} has no labels to train on: give a labelled set with --data"
            )
        return data


network_options = together(
    click.argument("checkpoint", type=Checkpoint(path_type=Path)),
    click.option("--arch", help="The architecture's name, where it is not recognised."),
    click.option("--model", help="The function that builds the network: package.module:factory."),
    click.option(
        "--data",
        help="digits, mnist:ROOT, fashionmnist:ROOT, cifar10:ROOT, cifar100:ROOT, "
        "imagefolder:ROOT, text:FILE, random:CxHxW (to probe alone), or "
        "package.module:factory for your own loaders. By default what the checkpoint "
        "remembers; to probe, else Gaussian inputs.",
    ),
    click.option(
        "--class-index",
        type=click.Path(path_type=Path),
        help="File that says at which output each folder of images stands: JSON or text.",
    ),
    click.option("--download", is_flag=True, help="Fetch the data where it is missing."),
    click.option(
        "--sequence-length",
        type=click.IntRange(min=2),
        help="Tokens of a sequence of text; by default 128, fewer where the network takes fewer.",
    ),
    click.option(
        "--tokenizer",
        type=click.Path(path_type=Path),
        help="Folder of the tokenizer of text, where it is not the network's own.",
    ),
    task_option,
)
"""The checkpoint, how its architecture is found, and the data."""


def unsafe_load_option(command: Command) -> Command:
    """Add the wish to run a file's code, which is never done without it."""
    return click.option(
        "--unsafe-load",
        is_flag=True,
        help="Load a whole pickled network with its own classes: this runs the file's code.",
    )(command)


def part_option(command: Command) -> Command:
    """Add which network to take of a file that holds several."""
    return click.option(
        "--part", help="Which network, where the file holds several: student, say."
    )(command)


def regrow_option(command: Command) -> Command:
    """Add the wish to let weights grow again that came pruned."""
    return click.option(
        "--regrow",
        is_flag=True,
        help="Let weights that came at zero grow again: those masked, and exact zeros taken as "
        "pruned.",
    )(command)
