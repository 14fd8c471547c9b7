"""The small residual network of the demo, for scikit-learn's 8x8 digits."""

from __future__ import annotations

from trainscope.networks.families.resnet_cifar import CifarResNet


def digits_resnet(num_classes: int = 10) -> CifarResNet:
    """Return a residual network of widths 16, 32 and 64 with two blocks each, for [N, 1, 8, 8].

    Args:
        num_classes: Width of the logits.
    """
    return CifarResNet(blocks=2, num_classes=num_classes, in_channels=1)
