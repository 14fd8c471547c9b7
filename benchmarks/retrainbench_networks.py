"""The networks of RetrainBench: small enough for a second a curve on one slow core."""

from __future__ import annotations

import math

import torch
from retrainbench_data import CHARACTERS, LENGTH, WINDOW, Data
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(data: Data) -> nn.Module:
    """Return two hidden layers."""
    size = data.x[0].numel()
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def lenet(data: Data) -> nn.Module:
    """Return LeNet-5 with ReLU and max pooling, its second convolution padded, for 14x14."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (data.x.shape[-1] // 4) ** 2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def vgg(data: Data) -> nn.Module:
    """Return four convolutions with batch norm, two and two between poolings."""
    layers: list[nn.Module] = []
    width = 1
    for wide in (8, 8, 16, 16):
        layers += [nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)] if wide == width else [nn.ReLU()]
        width = wide
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * (data.x.shape[-1] // 4) ** 2, 10))


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(out + self.skip(x))


def resnet(data: Data) -> nn.Module:
    """Return two residual blocks of 8 and 16 channels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1 if data.x.shape[-1] <= 8 else 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        _Block(8, 8),
        _Block(8, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


class _Attention(nn.Module):
    """Pre-norm attention and MLP of a transformer."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = (
            part.view(n, t, self.heads, w // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, w))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Two blocks over 16 patches: of 2x2, or of 4x4 with an edge of zeros."""

    def __init__(self, side: int, width: int = 24) -> None:
        super().__init__()
        small = side == 8
        self.patch = nn.Conv2d(1, width, 2 if small else 4, 2 if small else 4, 0 if small else 1)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(_Attention(width, 4, causal=False) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(x)).mean(1))


class GPT(nn.Module):
    """Two causal blocks over characters."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, LENGTH, width))
        self.blocks = nn.Sequential(*(_Attention(width, 4, causal=True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CHARACTERS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x) / math.sqrt(2) + self.place
        return self.head(self.norm(self.blocks(hidden)))


class LSTM(nn.Module):
    """One recurrent layer over characters."""

    def __init__(self, width: int = 80) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 32)
        self.rnn = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, CHARACTERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[0])


class CharacterCNN(nn.Module):
    """Two convolutions over a window of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 16)
        self.conv1, self.conv2 = nn.Conv1d(16, 32, 5, padding=2), nn.Conv1d(32, 32, 5, padding=2)
        self.hidden, self.head = nn.Linear(32 * WINDOW // 4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.conv1(self.embed(x).transpose(1, 2))), 2)
        x = F.max_pool1d(F.relu(self.conv2(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


class CharacterMLP(nn.Module):
    """Two hidden layers over the last half of a window of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 16)
        self.hidden1, self.hidden2 = nn.Linear(8 * WINDOW, 96), nn.Linear(96, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[:, WINDOW // 2 :]).flatten(1)
        return self.head(F.relu(self.hidden2(F.relu(self.hidden1(x)))))


def build(name: str, data: Data) -> nn.Module:
    """Return a network with random weights, drawn from torch's global generator."""
    plain = {"mlp": mlp, "lenet": lenet, "vgg": vgg, "resnet": resnet}
    own = {"gpt": GPT, "lstm": LSTM, "character-cnn": CharacterCNN, "character-mlp": CharacterMLP}
    if name in plain:
        return plain[name](data)
    return ViT(data.x.shape[-1]) if name == "vit" else own[name]()
