"""The data that needs no file of one's own: handwritten digits, in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trainscope.data.dataset import Dataset
from trainscope.data.split import TensorSplit

FILE = Path(__file__).parent / "digits.npz"
TRAIN = 1437


def digits() -> Dataset:
    """Return scikit-learn's digits: 1,437 train, 360 test (stratified, fixed), 8x8, 10 classes.

    The file beside this holds them in the order in which scikit-learn's `train_test_split` draws
    360 of `load_digits` by seed 0, stratified, so that nobody imports it for two seconds.

    Source: the test half of the UCI set of Alpaydin and Kaynak (1998; CC BY 4.0), as scikit-learn
    has it.
    """
    with np.load(FILE) as held:
        pixels, targets = held["images"], held["labels"]
    inputs = torch.from_numpy(pixels).float()[:, None] / 16.0
    labels = torch.from_numpy(targets).long()

    def half(which: slice) -> TensorSplit:
        # Mean and deviation of the training half.
        return TensorSplit(inputs[which].clone(), labels[which].clone(), (0.3053,), (0.3764,))

    return Dataset("digits", half(slice(TRAIN)), half(slice(TRAIN, None)), 10, (1, 8, 8))
