"""Folders of images, a class a folder, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainscope.data.augment import PadCrop
from trainscope.data.dataset import Dataset
from trainscope.data.split import Augment
from trainscope.errors import DataError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
READERS = 4
TRAIN = ("train", "training")
TEST = ("val", "valid", "validation", "eval", "dev", "test", "testing")
"""What folders of the halves are called, the first one found."""


@dataclass(frozen=True)
class FolderSplit:
    """A split that is read from image files when it is asked for.

    Attributes:
        images: (path, label) pairs.
        transform: From a PIL image to a normalised tensor [C, H, W].
        augment: The standard augmentation for training, or None.
    """

    images: list[tuple[str, int]]
    transform: Any
    augment: Augment | None = None
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(READERS), repr=False, compare=False
    )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images at indices, decoded, resized and normalised, and their labels.

        Raises:
            DataError: An image cannot be read.
        """
        chosen = [self.images[index] for index in indices.tolist()]
        inputs = list(self._pool.map(self._read, [path for path, _ in chosen]))
        return torch.stack(inputs), torch.tensor([label for _, label in chosen])

    def _read(self, path: str) -> Tensor:
        from PIL import Image

        try:
            with Image.open(path) as image:
                read: Tensor = self.transform(_of_bytes(image, path))
        except (OSError, SyntaxError) as error:
            raise DataError(f"the image {path} cannot be read: {error}") from error
        return read


def _of_bytes(image: Any, path: str) -> Any:
    """Return an image of 8 bits a channel; of 16 the upper ones, where Pillow would clip them.

    Raises:
        DataError: Its numbers are of 32 bits, whose range is not known.
    """
    if image.mode.startswith("I;16"):
        from PIL import Image

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"the image {path} has numbers of 32 bits, whose range is not known: make it one of 8 "
            "or 16 bits a channel"
        )
    return image


def load(root: Path, input_shape: tuple[int, ...]) -> Dataset:
    """Return a folder of images as a data set.

    `root/train` and `root/val` (or `valid`, `validation`, `eval`, `dev`, `test`, in any capitals)
    are its halves; a root whose folders are the classes themselves is a test half alone. Images are
    resized so that their short side is 8/7 of the network's (256 for 224), cropped at the centre,
    and normalised with ImageNet's mean and deviation (one channel: 0.5 and 0.5). Inputs up to 64
    pixels are resized without a crop.

    Args:
        root: The folder.
        input_shape: (C, H, W) of the network's input.

    Raises:
        DataError: There is no such folder, it has no images, or its halves differ in classes.
    """
    if not root.is_dir():
        raise DataError(f"no folder at {root}: 'imagefolder:ROOT' needs one with a folder a class")
    transform = _transform(input_shape)

    def half(folder: Path) -> Any:
        return _classes_of(folder)

    train_folder = _half(root, TRAIN)
    test_folder = _half(root, TEST, beside=train_folder is not None)
    if test_folder is None and train_folder is not None:
        raise DataError(
            f"{train_folder} has no test half beside it: put one there, like {root / 'val'}, or "
            "name that folder itself"
        )
    if test_folder is None:
        alone = half(root)
        test = FolderSplit(alone.imgs, transform)
        names = tuple(alone.classes)
        return Dataset(f"imagefolder:{root}", None, test, len(names), input_shape, names)
    tested = half(test_folder)
    train = None
    if train_folder is not None:
        trained = half(train_folder)
        if trained.classes != tested.classes:
            raise DataError(
                f"{train_folder} and {test_folder} do not have the same folders of classes"
            )
        train = FolderSplit(trained.imgs, transform, PadCrop(max(1, input_shape[-1] // 8)))
    test = FolderSplit(tested.imgs, transform)
    names = tuple(tested.classes)
    return Dataset(f"imagefolder:{root}", train, test, len(names), input_shape, names)


def _half(root: Path, names: tuple[str, ...], *, beside: bool = False) -> Path | None:
    """Return the folder of a half, None where there is none.

    It holds folders: one of images is of a class that is called so, but beside another half.
    """
    found = {each.name.lower(): each for each in sorted(root.iterdir()) if each.is_dir()}
    known = [found[name] for name in names if name in found]
    return next((each for each in known if beside or any(map(_is_class, each.iterdir()))), None)


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _classes_of(folder: Path) -> Any:
    """Return the images of a folder of classes; hidden folders without images are none.

    Raises:
        DataError: There are no classes, or one without images.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    def holds_image(path: Path) -> bool:
        return any(each.name.lower().endswith(IMG_EXTENSIONS) for each in path.rglob("*"))

    class Folder(ImageFolder):  # type: ignore[misc]
        """A folder a class, but for those that notebooks and file managers leave."""

        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            names = sorted(
                each.name
                for each in Path(directory).iterdir()
                if each.is_dir() and (not each.name.startswith(".") or holds_image(each))
            )
            return names, {name: place for place, name in enumerate(names)}

    found = Folder(str(folder), allow_empty=True)
    if not found.imgs:
        raise DataError(f"no images in {folder}: it needs a folder a class with images in it")
    there = {label for _, label in found.imgs}
    empty = next((name for name, place in found.class_to_idx.items() if place not in there), None)
    if empty is not None:
        raise DataError(
            f"no images in {folder / empty}, which is a class of its own: put some there, or take "
            "the folder away"
        )
    return found


@dataclass(frozen=True)
class _Cover:
    """Resize an image, its shape kept, to the smallest that a rectangle fits into."""

    height: int
    width: int

    def __call__(self, image: Any) -> Any:
        from torchvision.transforms import v2

        width, height = image.size
        scale = max(self.height / height, self.width / width)
        if self.height == self.width:  # as everybody has it, to the pixel
            return v2.functional.resize(image, [self.height])
        sides = [round(scale * height), round(scale * width)]
        return v2.functional.resize(image, sides)


def _transform(input_shape: tuple[int, ...]) -> Any:
    from torchvision.transforms import v2

    channels, height, width = input_shape
    small = height <= 64
    resize = [v2.Resize((height, width))] if small else [_Cover(height * 8 // 7, width * 8 // 7)]
    crop = [] if small else [v2.CenterCrop((height, width))]
    mode = [v2.RGB()] if channels == 3 else [v2.Grayscale()]
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    scaled = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    return v2.Compose([*mode, *resize, *crop, *scaled])
