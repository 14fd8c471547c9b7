"""Folders of classes put at the network's own outputs, by name: `--class-index`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trainscope.data.dataset import Dataset
from trainscope.data.split import Augment, Split
from trainscope.errors import DataError, RecordError
from trainscope.records.reading import text_of

MOST_BYTES = 16 * 2**20
_FORMS = (
    'write JSON like {"0": ["n01440764", "tench"]}, {"tench": 0} or ["tench", "goldfish"], or '
    "text with a name a line"
)


@dataclass(frozen=True)
class Relabelled:
    """A split whose labels are outputs of the network.

    Attributes:
        split: What is read.
        outputs: [classes of the split], the output of each.
    """

    split: Split
    outputs: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.split)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs, and their labels as outputs of the network."""
        inputs, labels = self.split.batch(indices)
        return inputs, self.outputs[labels]

    @property
    def augment(self) -> Augment | None:
        """Return the augmentation of what is read."""
        return self.split.augment


def read_class_index(path: Path) -> dict[str, int]:
    """Return the output of each class by its names.

    Args:
        path: JSON: names or lists of names by index, indices by name, or a list of names; or text:
            a name a line, with its index before or behind it where the order is not that of the
            outputs.

    Raises:
        DataError: The file is not there, or is of no such form.
    """
    try:
        text = text_of(path, MOST_BYTES, failed=f"the class index {path} cannot be read")
    except RecordError as error:
        raise DataError(str(error)) from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = [line.strip() for line in text.splitlines() if line.strip()]
    index: dict[str, int] = {}
    listed = enumerate(found) if isinstance(found, list) else ()
    for key, value in found.items() if isinstance(found, dict) else listed:
        names, place = _names(key, value)
        for name in names:
            if index.setdefault(name, place) != place:
                raise DataError(f"{path} puts the class '{name}' at {index[name]} and at {place}")
    if not index:
        raise DataError(f"{path} names no class: {_FORMS}")
    return index


def with_class_index(data: Dataset, path: Path, num_classes: int | None) -> Dataset:
    """Return folders of images with the labels that a class index gives their names.

    Args:
        data: Read from folders.
        path: The class index.
        num_classes: The width of the network's logits.

    Raises:
        DataError: The data has no names of classes, or the index lacks one of them or puts it
            beyond the network's outputs.
    """
    if not data.classes:
        raise DataError(f"{data.name} has no folders of classes for --class-index to put in order")
    index = read_class_index(path)
    missing = [name for name in data.classes if name not in index]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(f"{path} does not name the classes {', '.join(missing[:3])}{more}")
    outputs = [index[name] for name in data.classes]
    if num_classes is None:
        raise DataError("--class-index is of classes, and this network does not tell any apart")
    if not 0 <= min(outputs) <= max(outputs) < num_classes:
        raise DataError(f"{path} puts a class at {max(outputs)}; the network has {num_classes}")
    if len(set(outputs)) < len(outputs):
        raise DataError(f"{path} puts two of the classes of {data.name} at one output")
    places = torch.tensor(outputs)
    train = None if data.train is None else Relabelled(data.train, places)
    return replace(
        data, train=train, test=Relabelled(data.test, places), num_classes=num_classes, classes=()
    )


def _names(key: object, value: object) -> tuple[list[str], int]:
    """Return the names of one row, and its index."""
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(key, str):
        return [key], value
    if isinstance(key, str) and not re.fullmatch(r"\d{1,9}", key):
        raise DataError(f"a class index cannot have '{key}': {_FORMS}")
    place = int(str(key))
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return [str(name) for name in value], place
    if not isinstance(value, str):
        raise DataError(f"the class {place} has no name in the class index: {_FORMS}")
    if isinstance(key, int):  # a line, or an entry of a list
        before = re.fullmatch(r"(\d{1,9})[\s,:]+(.+)", value)
        behind = re.fullmatch(r"(.+?)[\s,:]+(\d{1,9})", value)
        if before:
            return [before[2]], int(before[1])
        if behind:
            return [behind[1]], int(behind[2])
    return [value], place
