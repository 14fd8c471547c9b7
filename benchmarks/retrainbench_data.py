"""The data of RetrainBench: small subsets of images, and the standard library's own text."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from library_text import text_of_the_library
from torch import Tensor
from torch.nn import functional as F

TRAIN, TEST = 2000, 600
"""Images of a subset: the first ones of each file."""
BATCH = 32
SEQUENCES = 8
LENGTH = 40
"""Characters of a sequence of the language models."""
WINDOW = 32
"""Characters that the class of the next one is told from."""
CHARACTERS = 96
"""Printable ASCII and the end of a line; all else is the last."""


@dataclass(frozen=True)
class Data:
    """A problem's data.

    Attributes:
        x: Inputs, [N, C, H, W] floats, or [N, W] characters; of a text, all its characters [L].
        y: Labels [N]; of a text, empty.
        x_test: Of the test.
        y_test: Of the test.
        classes: How many outputs a network has.
        text: Every character is to be foretold, from those before.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    text: bool = False

    def batches(self, seed: int, first: int, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return the batches of some steps, which depend on the seed and the steps alone.

        Images come in a new order in every epoch; sequences of a text start anywhere.
        """
        if self.text:
            drawn = torch.Generator().manual_seed(100_003 * (seed + 1) + first)
            starts = torch.randint(len(self.x) - LENGTH, (count, SEQUENCES), generator=drawn)
            windows = self.x[starts[..., None] + torch.arange(LENGTH + 1)]
            return [(window[:, :-1], window[:, 1:]) for window in windows]
        whole = len(self.y) // BATCH
        found = []
        for step in range(first, first + count):
            order = _order(seed, step // whole, len(self.y))
            index = order[step % whole * BATCH :][:BATCH]
            found.append((self.x[index], self.y[index]))
        return found


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    drawn = torch.Generator().manual_seed(100_003 * (seed + 1) + epoch)
    return torch.randperm(count, generator=drawn)


def load(problem: str, pool: bool, mnist: Path | None, fashion: Path | None) -> Data:
    """Return a problem's data.

    Args:
        problem: "digits", "mnist", "fashion-mnist", "code-classes" or "code-text".
        pool: Average the images of 28x28 to 14x14.
        mnist: Folder of MNIST's four files.
        fashion: Folder of Fashion-MNIST's, as Debian's dataset-fashion-mnist has them.
    """
    if problem == "digits":
        return _digits()
    if problem == "code-classes":
        return _code_classes()
    if problem == "code-text":
        codes = characters()
        cut = len(codes) * 9 // 10
        test = codes[cut:].unfold(0, LENGTH + 1, LENGTH + 1)
        test = test[:: len(test) // 64][:64]
        return Data(codes[:cut], codes[:0], test[:, :-1], test[:, 1:], CHARACTERS, text=True)
    folder = mnist if problem == "mnist" else fashion
    if folder is None:
        raise SystemExit(f"{problem} needs its folder")
    x, y = (_idx(folder, f"train-{what}", TRAIN) for what in ("images", "labels"))
    a, b = (_idx(folder, f"t10k-{what}", TEST) for what in ("images", "labels"))
    mean, deviation = x.mean(), x.std()

    def images(raw: np.ndarray) -> Tensor:
        out = torch.tensor((raw - mean) / deviation, dtype=torch.float32)[:, None]
        return F.avg_pool2d(out, 2) if pool else out

    return Data(images(x), torch.tensor(y).long(), images(a), torch.tensor(b).long(), 10)


def characters(most: int = 1_500_000) -> Tensor:
    """Return the sources of the standard library in a fixed, shuffled order, as codes below 96."""
    text = text_of_the_library(most)
    raw = torch.tensor(np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).copy()).long()
    return torch.where(raw == 10, CHARACTERS - 1, (raw - 32).clamp(0, CHARACTERS - 2))


def _code_classes() -> Data:
    """Return windows of source text and the class of the character that follows, one of ten."""
    codes = characters()
    signs = ("abcdefghijklm", "nopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789")
    signs = (*signs, " ", "_", ".,:;", "()[]{}", "'\"#")
    kind = torch.full((CHARACTERS,), 9)
    for number, group in enumerate(signs):
        kind[[ord(sign) - 32 for sign in group]] = number
    n, m = 2 * TRAIN, 2 * TEST
    drawn = torch.Generator().manual_seed(0)
    cut = len(codes) * 9 // 10
    train = torch.randperm(cut - WINDOW, generator=drawn)[:n]
    test = cut + torch.randperm(len(codes) - cut - WINDOW, generator=drawn)[:m]
    starts = torch.cat([train, test])
    windows = codes[starts[:, None] + torch.arange(WINDOW)]
    labels = kind[codes[starts + WINDOW]]
    return Data(windows[:n], labels[:n], windows[n:], labels[n:], 10)


def _digits() -> Data:
    """Return scikit-learn's digits as the package divides them: 1,437 and 360."""
    from trainscope.data import load as load_data

    both = load_data("digits", (1, 8, 8))
    tensors = []
    for half in (both.train, both.test):
        tensors += half.batch(torch.arange(len(half)))
    return Data(*tensors, 10)


def _idx(folder: Path, name: str, count: int) -> np.ndarray:
    """Read the first entries of one of the four files, packed or not."""
    path = next(folder.glob(f"{name}-idx?-ubyte*"))
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", axes, 4).astype(int)
    whole = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
    return whole[:count].astype(np.float64)
