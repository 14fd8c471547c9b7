"""Standard augmentations for training, on whole batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class PadCrop:
    """Pad, crop at random, and flip left to right with even odds: He et al. (2016) for CIFAR.

    Args:
        pixels: The padding on each side.
        flip: Flip as well.
    """

    def __init__(self, pixels: int, *, flip: bool = True) -> None:
        self.pixels, self.flip = pixels, flip

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch [N, C, H, W]."""
        count, _, height, width = inputs.shape
        span = 2 * self.pixels + 1
        rows = torch.randint(span, (count, 1, 1), generator=generator)
        columns = torch.randint(span, (count, 1, 1), generator=generator)
        rows = rows + torch.arange(height).view(1, -1, 1)
        columns = columns + torch.arange(width).view(1, 1, -1)
        if self.flip:
            turned = torch.rand(count, 1, 1, generator=generator) < 0.5
            columns = torch.where(turned, columns.flip(2), columns)
        padded = F.pad(inputs, [self.pixels] * 4)
        samples = torch.arange(count).view(-1, 1, 1)
        # The batch index and the two spatial indices go round the channels: [N, H, W, C].
        return padded[samples, :, rows, columns].permute(0, 3, 1, 2).contiguous()
