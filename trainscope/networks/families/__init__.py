"""Our own networks, one family a file: what pruning papers use and torchvision does not have."""

from __future__ import annotations

from functools import partial

from trainscope.networks.architecture import Architecture
from trainscope.networks.families.digits_net import DigitsLeNet, digits_resnet
from trainscope.networks.families.lenet import LeNet5
from trainscope.networks.families.resnet_cifar import CifarResNet
from trainscope.networks.families.vgg_cifar import CifarVGG19


def _resnet(depth: int) -> Architecture:
    blocks = (depth - 2) // 6
    return Architecture(
        name=f"resnet{depth}",
        input_shape=(3, 32, 32),
        num_classes=10,
        factory=partial(CifarResNet, blocks),
        marker=("linear.weight", f"layer3.{blocks - 1}.conv2.weight"),
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="digits_resnet",
        input_shape=(1, 8, 8),
        num_classes=10,
        factory=digits_resnet,
        marker=("linear.weight", "layer3.1.conv2.weight"),
    ),
    Architecture(
        name="digits_lenet",
        input_shape=(1, 8, 8),
        num_classes=10,
        factory=DigitsLeNet,
        marker=("conv3.weight", "fc2.weight"),
    ),
    Architecture(
        name="lenet5",
        input_shape=(1, 28, 28),
        num_classes=10,
        factory=LeNet5,
        marker=("conv1.weight", "fc3.weight"),
    ),
    *(_resnet(depth) for depth in (20, 32, 44, 56, 110)),
    Architecture(
        name="vgg19_cifar",
        input_shape=(3, 32, 32),
        num_classes=10,
        factory=CifarVGG19,
        marker=("feature.0.weight", "classifier.weight"),
    ),
)
"""Every architecture of ours, in the order in which a file is matched with them."""
