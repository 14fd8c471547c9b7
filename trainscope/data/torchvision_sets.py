"""MNIST, Fashion-MNIST and CIFAR, as torchvision's loaders read them, held in memory as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainscope.data.augment import PadCrop
from trainscope.data.dataset import Dataset
from trainscope.data.split import TensorSplit
from trainscope.errors import DataError, NotFetchedError


@dataclass(frozen=True)
class _Known:
    loader: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmented: bool


KNOWN = {
    "mnist": _Known("MNIST", 10, (0.1307,), (0.3081,), augmented=False),
    "fashionmnist": _Known("FashionMNIST", 10, (0.2860,), (0.3530,), augmented=False),
    "cifar10": _Known(
        "CIFAR10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), augmented=True
    ),
    "cifar100": _Known(
        "CIFAR100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), augmented=True
    ),
}
"""Means and standard deviations of the training halves, on the 0-to-1 scale."""


def load(kind: str, root: Path, *, download: bool = False) -> Dataset:
    """Return one of the known sets from a folder.

    Args:
        kind: A key of `KNOWN`.
        root: The folder, as torchvision's loader of that name takes it.
        download: Fetch the set where it is not there.

    Raises:
        DataError: The set is not at the root, is damaged, or cannot be fetched.
    """
    from torchvision import datasets

    known = KNOWN[kind]
    loader: Any = getattr(datasets, known.loader)
    halves = []
    for train in (True, False):
        try:
            read = loader(str(root), train=train, download=download)
        except Exception as error:
            if not download:
                raise NotFetchedError(
                    f"no {known.loader} at {root}: give the folder that torchvision's "
                    f"{known.loader} loader takes",
                    ", or add --download to fetch it",
                ) from error
            raise DataError(
                f"{known.loader} could not be fetched to {root}; try again where there is a "
                f"network, or put the files there that torchvision's {known.loader} loader takes: "
                f"{error}"
            ) from error
        augment = PadCrop(4) if known.augmented else None
        inputs, labels = _bytes(read.data), torch.as_tensor(read.targets).long()
        halves.append(TensorSplit(inputs, labels, known.mean, known.std, augment))
    shape = tuple(halves[0].inputs.shape[1:])
    return Dataset(f"{kind}:{root}", halves[0], halves[1], known.classes, shape)


def _bytes(data: Any) -> Tensor:
    pixels = torch.as_tensor(data)
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
