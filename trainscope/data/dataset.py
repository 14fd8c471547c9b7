"""A labelled data set: its two halves and its shape."""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.data.split import Split


@dataclass(frozen=True)
class Dataset:
    """A labelled data set.

    Attributes:
        name: As `--data` takes it.
        train: The training half; None for a folder of images that has no such half.
        test: The test half.
        num_classes: The number of classes; None where only the network can say.
        input_shape: The shape of one input, (C, H, W).
        classes: The names of the classes in the order of the labels, where folders say them.
        notes: What a person should know of how it was read, each one sentence.
    """

    name: str
    train: Split | None
    test: Split
    num_classes: int | None
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
