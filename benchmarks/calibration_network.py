"""Networks of one shape, trained side by side, each at its own LR."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from calibration_data import Data
from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Setting:
    """One data set, network and optimizer; every LR of the grid is trained on it."""

    data: str
    optimizer: str
    top_lr: float
    epochs: int
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 50
    norm: bool = False
    conv: bool = False
    dropout: float = 0.0
    decay: float = 0.0
    prune: float = 0.0
    stages: tuple[int, ...] = ()
    count: int = 15


class Batched:
    """K networks of one shape, their parameters in one tensor a layer, trained side by side."""

    def __init__(self, setting: Setting, data: Data, k: int, generator: torch.Generator) -> None:
        self.setting, self.k, self.generator = setting, k, generator
        self.convs = (8, 16) if setting.conv else ()
        shapes: list[tuple[int, ...]] = []
        channels = 1
        for out in self.convs:
            shapes += [(out, channels, 3, 3)]
            channels = out
        width = 16 * 16 if setting.conv else data.x.shape[1]
        hidden = (32,) if setting.conv else setting.hidden
        for out in (*hidden, data.classes):
            shapes += [(width, out)]
            width = out
        self.p: dict[str, Tensor] = {}
        self.stats: dict[str, Tensor] = {}
        for i, shape in enumerate(shapes):
            fan = shape[0] if len(shape) == 2 else shape[1] * 9
            gain = 2.0 if i < len(shapes) - 1 else 1.0
            w = torch.randn(shape, generator=generator) * (gain / fan) ** 0.5
            self.p[f"w{i}"] = w[None].repeat(k, *[1] * len(shape))
            out = shape[-1] if len(shape) == 2 else shape[0]
            self.p[f"b{i}"] = torch.zeros(k, out)
            if setting.norm and i < len(shapes) - 1:
                self.p[f"g{i}"] = torch.ones(k, out)
                self.stats[f"m{i}"], self.stats[f"v{i}"] = torch.zeros(k, out), torch.ones(k, out)
        self.layers = len(shapes)
        self.mask: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the optimizer's state."""
        self.m = {n: torch.zeros_like(t) for n, t in self.p.items()}
        self.s = {n: torch.zeros_like(t) for n, t in self.p.items()}
        self.steps = 0

    def copy_state(self) -> tuple[dict[str, Tensor], ...]:
        """Return copies of parameters, statistics and optimizer state."""
        return tuple(
            {n: t.clone() for n, t in d.items()} for d in (self.p, self.stats, self.m, self.s)
        )

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """Return the logits [K, B, C] of inputs [K, B, ...]."""
        k, p = self.k, self.p
        if self.convs:
            x = x[:, :, 0].transpose(0, 1)
            for i in range(len(self.convs)):
                w = p[f"w{i}"].flatten(0, 1)
                x = F.relu(F.conv2d(x, w, p[f"b{i}"].flatten(), stride=2, padding=1, groups=k))
            x = x.unflatten(1, (k, -1)).transpose(0, 1).flatten(2)
        for i in range(len(self.convs), self.layers):
            x = torch.baddbmm(p[f"b{i}"][:, None], x, p[f"w{i}"])
            if i == self.layers - 1:
                break
            if f"g{i}" in p:
                if training:
                    mean, var = x.mean(1), x.var(1, unbiased=False)
                    with torch.no_grad():
                        self.stats[f"m{i}"].lerp_(mean, 0.1)
                        self.stats[f"v{i}"].lerp_(var, 0.1)
                else:
                    mean, var = self.stats[f"m{i}"], self.stats[f"v{i}"]
                x = (x - mean[:, None]) * ((var + 1e-5).rsqrt() * p[f"g{i}"])[:, None]
            x = F.relu(x)
            if training and self.setting.dropout:
                keep = torch.rand(x.shape, generator=self.generator) >= self.setting.dropout
                x = x * keep / (1 - self.setting.dropout)
        return x

    def prune(self, ratio: float) -> None:
        """Zero, and hold at zero, the hidden units or filters of least L1 norm in network 0."""
        for i in range(self.layers - 1):
            w = self.p[f"w{i}"]
            norms = w[0].abs().flatten(1).sum(1) if w.dim() == 5 else w[0].abs().sum(0)
            keep = torch.zeros_like(norms)
            keep[norms.argsort(descending=True)[: max(1, round(len(norms) * (1 - ratio)))]] = 1
            self.mask[f"w{i}"] = (
                keep[None, :, None, None, None] if w.dim() == 5 else keep[None, None]
            )
            for name in (f"b{i}", f"g{i}"):
                if name in self.p:
                    self.mask[name] = keep[None]
        for name, mask in self.mask.items():
            self.p[name] = self.p[name] * mask

    def step(self, x: Tensor, y: Tensor, lr: Tensor) -> None:
        """Take one step of every network, each at its own LR [K]."""
        for t in self.p.values():
            t.requires_grad_(True)
        logits = self.forward(x, True)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]
        grads = torch.autograd.grad(loss, list(self.p.values()))
        self.steps += 1
        for (name, t), g in zip(list(self.p.items()), grads, strict=True):
            t = t.detach()
            rate = lr.view(-1, *[1] * (t.dim() - 1))
            g = g + self.setting.decay * t if name[0] == "w" else g
            if self.setting.optimizer == "adam":
                m, s = self.m[name], self.s[name]
                m.lerp_(g, 0.1)
                s.lerp_(g * g, 0.001)
                hat = (s / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
                t = t - rate * (m / (1 - 0.9**self.steps)) / hat
            elif self.setting.optimizer == "sgd":
                t = t - rate * g
            else:
                m = self.m[name].mul_(0.99 if self.setting.optimizer == "heavy" else 0.9).add_(g)
                t = t - rate * m
            self.p[name] = t * self.mask[name] if name in self.mask else t

    @torch.no_grad()
    def score(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Return the test accuracy (percent) and training loss (nats) of every network, [K]."""
        hits, losses = [], []
        for x, y in zip(data.x_test.split(1000), data.y_test.split(1000), strict=True):
            logits = self.forward(x[None].expand(self.k, *x.shape), False)
            hits.append((logits.argmax(-1) == y).float().sum(1))
        x, y = data.x[:1500], data.y[:1500]
        logits = self.forward(x[None].expand(self.k, *x.shape), False)
        labels = y[None].expand(self.k, -1).flatten()
        losses = F.cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(self.k, -1)
        accuracy = 100 * sum(hits) / len(data.y_test)
        return accuracy.numpy(), losses.mean(1).numpy()

    def epoch(self, data: Data, lr: Tensor) -> None:
        """Train one epoch, each network in its own order."""
        n, b = len(data.y), self.setting.batch
        order = torch.rand(self.k, n, generator=self.generator).argsort(1)
        for start in range(0, n - b + 1, b):
            index = order[:, start : start + b]
            self.step(data.x[index], data.y[index], lr)
