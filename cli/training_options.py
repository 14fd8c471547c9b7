"""Options that every training shares, and what they build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainscope.cli.options import Place, probes_option
from trainscope.training.settings import PRECISIONS

if TYPE_CHECKING:
    from trainscope.data import Dataset
    from trainscope.networks import Network
    from trainscope.training.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])
SETTINGS = (
    "optimizer",
    "momentum",
    "weight_decay",
    "batch_size",
    "label_smoothing",
    "clip",
    "augment",
    "precision",
    "seed",
)


def training_options(command: Command) -> Command:
    """Add the optimizer and the rest, what is measured on the way, the device and the output."""
    for add in reversed(
        (
            click.option(
                "--optimizer",
                type=click.Choice(["sgd", "adamw"]),
                default="sgd",
                show_default=True,
                help="SGD with momentum, or AdamW.",
            ),
            click.option("--momentum", type=float, default=0.9, show_default=True, help="Of SGD."),
            click.option(
                "--weight-decay",
                type=float,
                default=5e-4,
                show_default=True,
                help="L2 for SGD.",
            ),
            click.option(
                "--batch-size", type=int, default=64, show_default=True, help="Samples a step."
            ),
            click.option(
                "--label-smoothing",
                type=float,
                default=0.0,
                show_default=True,
                help="Share of the target spread over all classes.",
            ),
            click.option("--clip", type=float, help="Largest 2-norm of the gradient."),
            click.option(
                "--augment/--no-augment",
                default=True,
                show_default=True,
                help="The data set's standard augmentation.",
            ),
            click.option(
                "--precision",
                type=click.Choice(PRECISIONS),
                default="auto",
                show_default=True,
                help="Mixed where the device has it, or as said.",
            ),
            click.option("--seed", type=click.IntRange(0, 2**63 - 2), default=0, show_default=True),
            click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ..."),
            click.option(
                "--norms/--no-norms",
                default=True,
                show_default=True,
                help="Keep the gradient's norm at every step.",
            ),
            probes_option(),
            click.option(
                "--probe-epochs", help="After which epochs, like 0,1,5; by default after each."
            ),
            click.option("--probe-every", type=int, help="Or every so many steps."),
            click.option(
                "--samples",
                type=click.IntRange(min=2),
                default=256,
                show_default=True,
                help="Pinned samples of the probes.",
            ),
            click.option(
                "--output",
                type=Place(path_type=Path),
                help="Folder of the run; by default runs/NAME, named by its settings.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print the Run as JSON."),
        )
    ):
        command = add(command)
    return command


def build_settings(options: dict[str, Any]) -> Settings:
    """Take the settings out of a command's options.

    Raises:
        ScheduleError: One of them is out of range.
    """
    from trainscope.training.settings import Settings

    return Settings(**{name: options.pop(name) for name in SETTINGS})


def open_both(
    checkpoint: Path,
    data: str | None,
    *,
    task: str | None,
    download: bool,
    class_index: Path | None = None,
    sequence_length: int | None = None,
    tokenizer: Path | None = None,
    **opening: Any,
) -> tuple[Network, Dataset]:
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

    text = TextOptions(sequence_length, tokenizer)
    asked = None if task is None else find_task(task)
    how = Opening(remark, **opening, task=asked, text=text)
    network, dataset = how.network_and_data(
        checkpoint, data, class_index=class_index, download=download
    )
    if not isinstance(dataset, RandomInputs):
        return network, dataset
    if data is not None:
        raise DataError(f"{data} has no labels to train on: give a labelled set with --data")
    raise DataError(
        "the checkpoint does not remember what it was trained on: name it with --data, like "
        "--data cifar10:ROOT"
    )


def open_dataset(
    spec: str, input_shape: tuple[int, ...], *, download: bool, task: str | None = None
) -> Dataset:
    """Return labelled data.

    Raises:
        DataError: It is not there, or it is random inputs, which nobody can train on.
    """
    from trainscope.data import RandomInputs, load
    from trainscope.errors import DataError
    from trainscope.task import find_task

    asked = None if task is None else find_task(task)
    data = load(spec, input_shape, download=download, task=asked)
    if isinstance(data, RandomInputs):
        raise DataError(f"{spec} has no labels to train on: give a labelled set with --data")
    return data
