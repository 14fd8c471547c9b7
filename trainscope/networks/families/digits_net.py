"""Small networks for scikit-learn's 8x8 digits: the residual one of the demo, and a LeNet."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trainscope.networks.families.resnet_cifar import CifarResNet


def digits_resnet(num_classes: int = 10) -> CifarResNet:
    """Return a residual network of widths 16, 32 and 64 with two blocks each, for [N, 1, 8, 8].

    Args:
        num_classes: Width of the logits.
    """
    return CifarResNet(blocks=2, num_classes=num_classes, in_channels=1)


class DigitsLeNet(nn.Module):
    """Three convolutions and two linear layers of ten units each, with ReLU and max-pooling.

    Takes [N, 1, 8, 8], gives logits [N, num_classes]. The form of LeNet-5 with so few filters a
    layer that all ways to prune one can be tried.

    Args:
        num_classes: Width of the logits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 3, padding=1)
        self.conv2 = nn.Conv2d(10, 10, 3, padding=1)
        self.conv3 = nn.Conv2d(10, 10, 2)
        self.fc1 = nn.Linear(10, 10)
        self.fc2 = nn.Linear(10, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits
