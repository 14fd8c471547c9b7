"""The data that needs no file: scikit-learn's handwritten digits."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainscope.data.dataset import Dataset
from trainscope.data.split import TensorSplit

TEST_SHARE = 360
SEED = 0
_FILE = "datasets/data/digits.csv.gz"

Rows = NDArray[np.int64]


def digits() -> Dataset:
    """Return scikit-learn's digits: 1,437 train, 360 test (stratified, fixed), 8x8, 10 classes.

    Source: the test half of the UCI set of Alpaydin and Kaynak (1998), shipped by scikit-learn.
    """
    rows = _rows()

    def half(places: Rows) -> TensorSplit:
        table = torch.from_numpy(rows[places])
        inputs = table[:, :-1].float().view(-1, 1, 8, 8) / 16.0
        # Mean and deviation of the training half.
        return TensorSplit(inputs, table[:, -1].clone(), (0.3053,), (0.3764,))

    train, test = stratified(rows[:, -1], TEST_SHARE, SEED)
    return Dataset("digits", half(train), half(test), 10, (1, 8, 8))


def _rows() -> Rows:
    """Return [1797, 65]: 64 pixels from 0 to 16 and the label.

    The file is read where it lies: to import scikit-learn takes longer than all that follows.
    """
    found = find_spec("sklearn")
    for folder in () if found is None else found.submodule_search_locations or ():
        file = Path(folder) / _FILE
        if file.is_file():
            with gzip.open(file, "rt") as text:
                return np.loadtxt(text, delimiter=",").astype(np.int64)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.int64)


def stratified(labels: Rows, held_out: int, seed: int) -> tuple[Rows, Rows]:
    """Return the places of two parts with the same shares of every class, drawn at random.

    They are those of scikit-learn's `train_test_split(..., stratify=labels, random_state=seed)`,
    whose draws are made here in the same order.

    Args:
        labels: [N], from 0 on.
        held_out: How many are in the second part.
        seed: Of the draws.
    """
    draws = np.random.RandomState(seed)
    sizes = np.bincount(labels)
    first = _shared_out(sizes, len(labels) - held_out, draws)
    second = _shared_out(sizes - first, held_out, draws)
    parts: tuple[list[Rows], list[Rows]] = ([], [])
    for each, (a, b) in enumerate(zip(first, second, strict=True)):
        members = np.flatnonzero(labels == each)[draws.permutation(sizes[each])]
        parts[0].append(members[:a])
        parts[1].append(members[a : a + b])
    kept, held = (draws.permutation(np.concatenate(part)) for part in parts)
    return kept, held


def _shared_out(sizes: Rows, count: int, draws: np.random.RandomState) -> Rows:
    """Return how many of each class to draw, in proportion; ties for the rest are drawn."""
    exact = sizes / sizes.sum() * count
    found: Rows = np.floor(exact).astype(np.int64)
    rest, missing = exact - found, count - int(found.sum())
    for value in np.unique(rest)[::-1]:
        if not missing:
            break
        tied = np.flatnonzero(rest == value)
        chosen = draws.choice(tied, min(len(tied), missing), replace=False)
        found[chosen] += 1
        missing -= len(chosen)
    return found
