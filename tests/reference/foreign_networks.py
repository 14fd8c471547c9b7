"""Small networks of kinds that the project did not write, each with its own traps for a cut."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers


class UNet(nn.Module):
    """Two levels, skips that are concatenated, and padding where sizes are odd."""

    def __init__(self):
        super().__init__()
        self.down = _double(1, 6)
        self.low = _double(6, 8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.out = _double(12, 6)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, images):
        skip = self.down(images)
        up = self.up(self.low(F.max_pool2d(skip, 2)))
        if up.shape[-1] != skip.shape[-1]:
            up = F.pad(up, (0, skip.shape[-1] - up.shape[-1], 0, skip.shape[-2] - up.shape[-2]))
        return self.head(self.out(torch.cat([skip, up], dim=1)))


def _double(wide, narrow):
    return nn.Sequential(
        *(nn.Conv2d(wide, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
        *(nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU()),
    )


class Mixture(nn.Module):
    """A shared layer, grouped and depthwise convolutions, a gate, a view, a module never used."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.enter = nn.Conv2d(6, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.gate = nn.Conv2d(16, 16, 1)
        self.left = nn.Conv2d(16, 5, 1)
        self.right = nn.Conv2d(16, 7, 1)
        self.fc = nn.Linear(12 * 4, 4)
        self.never = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        x = torch.relu(self.enter(torch.relu(self.stem(images))))
        x = torch.relu(self.shared(torch.relu(self.shared(x))))
        x = F.relu(self.depth(F.relu(self.norm(self.grouped(x)))))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = F.adaptive_avg_pool2d(torch.cat([self.left(x), torch.tanh(self.right(x))], 1), 2)
        batch, channels, height, width = x.shape
        return {"logits": self.fc(x.view(batch, channels * height * width)), "map": x.mean(1)}


class ByHand(nn.Module):
    """A convolution called as a function, a width written into the code, a branch not taken."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.before = nn.Conv2d(6, 8, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(6, 8, 3, 3) / 8)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)
        self.free = nn.Conv2d(6, 8, 3, padding=1)
        self.fixed = nn.Conv2d(8, 6, 3, padding=1)
        self.fc = nn.Linear(24, 3)

    def forward(self, images, *, double=False):
        x = self.before(torch.relu(self.stem(images)))
        x = self.middle(torch.relu(F.conv2d(x, self.kernel, padding=1)))
        x = torch.relu(self.fixed(torch.relu(self.free(x))))
        x = F.adaptive_max_pool2d(x, 2).view(-1, 24)
        logits = self.fc(2 * x if double else x)
        return logits, [images.mean((2, 3))]


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(12, 10), nn.Tanh()),
            *(nn.Linear(10, 8), nn.GELU(), nn.Linear(8, 2)),
        )

    def forward(self, images):
        return self.layers(images)


def _resnet(block):
    narrow = {} if block is BasicBlock else {"width_per_group": 8}
    return ResNet(block, [1, 1, 1, 1], num_classes=4, **narrow)


def _vgg():
    with torch.device("meta"):  # the classifier that it makes itself has 119 million weights
        network = VGG(nn.Identity(), num_classes=4)
    network.features = make_layers([8, "M", 12, 12, "M"], True)
    network.classifier = nn.Sequential(nn.Linear(12 * 49, 8), nn.ReLU(), nn.Linear(8, 4))
    return network


def _inception():
    return nn.Sequential(
        BasicConv2d(3, 6, kernel_size=3),
        *(Inception(6, 4, 4, 6, 2, 4, 4), Inception(18, 4, 4, 4, 2, 4, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(14, 3)),
    )


_SETTING = [[1, 8, 1, 1], [4, 8, 2, 1], [4, 12, 1, 2]]

NETWORKS = {
    "resnet": (lambda: _resnet(BasicBlock), (3, 16, 16)),
    "bottlenecks": (lambda: _resnet(Bottleneck), (3, 16, 16)),
    "mobilenet_v2": (
        lambda: torchvision.models.MobileNetV2(4, 0.25, _SETTING, round_nearest=4),
        (3, 16, 16),
    ),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 2), 8, 2, num_classes=4), (3, 32, 32)),
    "vgg": (_vgg, (3, 28, 28)),
    "inception": (_inception, (3, 8, 8)),
    "u-net": (UNet, (1, 9, 9)),
    "mixture": (Mixture, (3, 6, 6)),
    "by hand": (ByHand, (3, 6, 6)),
    "perceptron": (Perceptron, (3, 2, 2)),
}
"""Builders and the shape of one input, by name."""
