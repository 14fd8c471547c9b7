"""The data that needs no file: scikit-learn's handwritten digits."""

from __future__ import annotations

import torch

from trainscope.data.dataset import Dataset
from trainscope.data.split import TensorSplit

TEST_SHARE = 360
SEED = 0


def digits() -> Dataset:
    """Return scikit-learn's digits: 1,437 train, 360 test (stratified, fixed), 8x8, 10 classes.

    Source: the test half of the UCI set of Alpaydin and Kaynak (1998), shipped by scikit-learn.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_SHARE, stratify=labels, random_state=SEED
    )

    def half(pixels: object, targets: object) -> TensorSplit:
        inputs = torch.as_tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16.0
        # Mean and deviation of the training half.
        return TensorSplit(inputs, torch.as_tensor(targets).long(), (0.3053,), (0.3764,))

    return Dataset("digits", half(train_x, train_y), half(test_x, test_y), 10, (1, 8, 8))
