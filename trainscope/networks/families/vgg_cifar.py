"""VGG-19 with batch norm for CIFAR."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)
"""Filters of each convolution in order; 0 is a 2x2 max-pooling."""


class CifarVGG19(nn.Module):
    """Sixteen 3x3 convolutions with batch norm and ReLU, average pooling, one linear classifier.

    Takes [N, 3, 32, 32], gives logits [N, num_classes]. The form of Liu et al., "Rethinking the
    value of network pruning" (2019), and of network slimming before it: no bias before batch norm,
    one linear layer in the place of the three of Simonyan and Zisserman (2015).

    Args:
        num_classes: Width of the logits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.feature = nn.Sequential(*_layers())
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.pool(self.feature(x)).flatten(1))
        return logits


def _layers() -> Iterator[nn.Module]:
    inputs = 3
    for width in _WIDTHS:
        if width:
            yield nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(width)
            yield nn.ReLU()
            inputs = width
        else:
            yield nn.MaxPool2d(2)
