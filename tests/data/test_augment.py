from __future__ import annotations

import torch
from torch.nn import functional as F

from trainscope.data.augment import PadCrop


def test_every_result_is_a_crop_of_the_padded_input_or_its_mirror():
    inputs = torch.randn(64, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    changed = PadCrop(2)(inputs, torch.Generator().manual_seed(1))
    assert changed.shape == inputs.shape
    seen = set()
    for before, after in zip(F.pad(inputs, [2] * 4), changed, strict=True):
        crops = {
            (row, column, turn): crop.flip(2) if turn else crop
            for row in range(5)
            for column in range(5)
            for turn in (False, True)
            for crop in [before[:, row : row + 6, column : column + 5]]
        }
        found = [key for key, crop in crops.items() if torch.equal(crop, after)]
        assert found
        seen.add(found[0])
    assert len(seen) > 20  # of 50


def test_the_generator_decides():
    inputs = torch.randn(8, 1, 8, 8)
    one, two = (PadCrop(1)(inputs, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
