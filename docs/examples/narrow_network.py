"""The network of pruning_schedules.toml: three convolutions with batch norm for 8 x 8 digits."""

from __future__ import annotations

from torch import nn


def network(num_classes: int = 10) -> nn.Module:
    """Return it with random weights."""

    def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return convolution, nn.BatchNorm2d(outputs), nn.ReLU()

    return nn.Sequential(
        *(*block(1, 16, 1), *block(16, 32, 2), *block(32, 32, 2)),
        *(nn.Flatten(), nn.Linear(128, num_classes)),
    )
