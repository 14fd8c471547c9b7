"""Train the small runs that the convergence estimator is calibrated on, beside the public ones.

    python benchmarks/calibration_runs.py OUT [--mnist ROOT] [--only NAME]

Fifteen constant learning rates (0.2 decades apart) of one setting are trained at once, as one
batched network; so are the decays, which start from several epochs of the constant runs. Every
setting is written to OUT/NAME.npz: `lr` [K], `accuracy` [K, E+1] (percent, test set, epoch 0
first), `loss` [K, E+1] (nats, training set), `chance`, and for settings with decays `stages` [S],
`decay_lr` [D], and `final` [K, S] (accuracy after decays that start at that epoch) with the
per-epoch `decay_accuracy` [K, S, D]. One core, about 20 minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs [N, D] or [N, 1, H, W] and labels [N], of a training and a test set."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int


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


SETTINGS = {
    "digits-sgd": Setting("digits", "sgd", 1.0, 150),
    "digits-adam": Setting("digits", "adam", 1e-1, 100, norm=True),
    "digits-pruned": Setting(
        "digits",
        "momentum",
        1e-1,
        160,
        norm=True,
        prune=0.9,
        stages=(10, 15, 20, 30, 40, 60, 90, 130, 160),
    ),
    "digits-noisy": Setting("digits-noisy", "momentum", 1e-1, 120, hidden=(128,)),
    "teacher-sgd": Setting("teacher", "sgd", 1.0, 120),
    "teacher-adam": Setting("teacher", "adam", 2.5e-2, 120),
    "teacher-momentum": Setting("teacher", "momentum", 4e-1, 200, decay=1e-3, norm=True),
    "spectrum-sgd": Setting("spectrum", "sgd", 4.0, 150, hidden=()),
    "spectrum-momentum": Setting("spectrum", "heavy", 1e-1, 100, hidden=(50,)),
    "chain-adam": Setting("chain", "adam", 4e-2, 150, hidden=(64,)),
    "chain-momentum": Setting("chain", "momentum", 1.0, 200, hidden=(64,), dropout=0.2),
    "modular-adam": Setting("modular", "adam", 2.5e-2, 200, hidden=(96,), decay=1e-3),
    "mnist-sgd": Setting("mnist", "sgd", 1.0, 100),
    "mnist-heavy": Setting("mnist", "heavy", 1e-2, 60, dropout=0.3),
    "mnist-adam-noisy": Setting("mnist-noisy", "adam", 2.5e-2, 80, norm=True, decay=1e-3),
    "mnist-pruned": Setting(
        "mnist",
        "momentum",
        2.5e-1,
        120,
        norm=True,
        prune=0.95,
        stages=(8, 12, 18, 27, 40, 60, 90, 120),
    ),
    "mnist-conv-momentum": Setting("mnist-image", "momentum", 1e-1, 70, conv=True, count=12),
    "mnist-conv-pruned": Setting(
        "mnist-image",
        "sgd",
        4e-1,
        70,
        conv=True,
        prune=0.75,
        stages=(6, 9, 14, 21, 32, 48, 70),
        count=12,
    ),
}
DECAY = (0.1,) * 8 + (0.01,) * 4
"""The LR of each epoch after the first stage, as a share of it."""


def digits(noise: float) -> Data:
    """Return scikit-learn's digits, half for testing, a share of training labels redrawn."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(raw.target))
    x = torch.tensor(raw.data[order] / 8 - 1, dtype=torch.float32)
    y = torch.tensor(raw.target[order])
    return redraw(Data(x[:900], y[:900], x[900:], y[900:], 10), noise)


def mnist(root: str, noise: float, image: bool) -> Data:
    """Return 3,000 training and 4,000 test images of MNIST, averaged to 14x14."""
    from torchvision.datasets import MNIST

    raw = MNIST(root)
    order = torch.randperm(len(raw), generator=torch.Generator().manual_seed(0))[:7000]
    x = F.avg_pool2d(raw.data[order].float()[:, None], 2) / 128 - 0.26
    x = x if image else x.flatten(1)
    y = raw.targets[order]
    return redraw(Data(x[:3000], y[:3000], x[3000:], y[3000:], 10), noise)


def teacher() -> Data:
    """Return Gaussian inputs with the labels of a random network; learned slowly, never wholly."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(6000, 20, generator=g)
    hidden = torch.tanh(x @ torch.randn(20, 60, generator=g) / 3)
    y = (hidden @ torch.randn(60, 10, generator=g)).argmax(1)
    return Data(x[:3000], y[:3000], x[3000:], y[3000:], 10)


def spectrum() -> Data:
    """Return inputs of a power-law spectrum with noisy linear labels: learned at every scale."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(5000, 100, generator=g) * torch.arange(1.0, 101) ** -0.7
    weights = torch.randn(100, 10, generator=g) * torch.arange(1.0, 101)[:, None] ** 0.2
    y = (x @ weights + 0.5 * torch.randn(5000, 10, generator=g)).argmax(1)
    return Data(x[:2500], y[:2500], x[2500:], y[2500:], 10)


def chain() -> Data:
    """Return next-token prediction from two tokens, of a random second-order Markov chain."""
    g = torch.Generator().manual_seed(3)
    vocabulary, count = 16, 9000
    logits = 1.2 * torch.randn(vocabulary, vocabulary, vocabulary, generator=g)
    logits += 1.5 * torch.randn(1, vocabulary, vocabulary, generator=g)
    rows = logits.softmax(-1)
    tokens = [0, 1]
    for _ in range(count):
        tokens.append(int(torch.multinomial(rows[tokens[-2], tokens[-1]], 1, generator=g)))
    t = torch.tensor(tokens)
    x = torch.cat([F.one_hot(t[:-2], vocabulary), F.one_hot(t[1:-1], vocabulary)], 1).float()
    return Data(x[:4000], t[2:4002], x[4000:count], t[4002 : count + 2], vocabulary)


def modular() -> Data:
    """Return addition modulo 23, with three training pairs in four: late, steep learning."""
    g = torch.Generator().manual_seed(4)
    p = 23
    a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
    order = torch.randperm(p * p, generator=g)
    x = torch.cat([F.one_hot(a.flatten(), p), F.one_hot(b.flatten(), p)], 1).float()[order]
    y = ((a + b) % p).flatten()[order]
    cut = 400
    return Data(x[:cut].repeat(3, 1), y[:cut].repeat(3), x[cut:], y[cut:], p)


def redraw(data: Data, share: float) -> Data:
    """Return the data with a share of the training labels drawn at random."""
    if not share:
        return data
    g = torch.Generator().manual_seed(5)
    flip = torch.rand(len(data.y), generator=g) < share
    random = torch.randint(data.classes, data.y.shape, generator=g)
    return dataclasses.replace(data, y=torch.where(flip, random, data.y))


def load(name: str, root: str) -> Data:
    """Return a data set by the name that the settings use."""
    if name.startswith("mnist"):
        return mnist(root, 0.3 * name.endswith("noisy"), name.endswith("image"))
    if name.startswith("digits"):
        return digits(0.3 * name.endswith("noisy"))
    return {"teacher": teacher, "spectrum": spectrum, "chain": chain, "modular": modular}[name]()


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


def train(name: str, setting: Setting, data: Data) -> dict[str, np.ndarray]:
    """Train every LR of a setting, and the decays from its stages."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    k = setting.count
    lr = setting.top_lr * 10 ** (-0.2 * torch.arange(k - 1, -1, -1.0))
    net = Batched(setting, data, k, generator)
    if setting.prune:
        rate = {"sgd": 0.1, "momentum": 0.02, "heavy": 0.002, "adam": 2e-3}[setting.optimizer]
        for epoch in range(20):
            net.epoch(data, torch.full((k,), rate * (0.1 if epoch > 14 else 1.0)))
        for group in (net.p, net.stats):
            for key in group:
                group[key] = group[key][:1].detach().repeat(k, *[1] * (group[key].dim() - 1))
        net.prune(setting.prune)
        net.reset()
    first = net.score(data)
    accuracy, loss = [first[0]], [first[1]]
    finals, decays = [], []
    for epoch in range(1, setting.epochs + 1):
        net.epoch(data, lr)
        a, b = net.score(data)
        accuracy.append(a)
        loss.append(b)
        if epoch in setting.stages:
            kept, steps = net.copy_state(), net.steps
            tail = []
            for share in DECAY:
                net.epoch(data, lr * share)
                tail.append(net.score(data)[0])
            decays.append(np.stack(tail, 1))
            finals.append(np.mean(tail[-3:], axis=0))
            (net.p, net.stats, net.m, net.s), net.steps = kept, steps
    out = {
        "lr": lr.numpy(),
        "accuracy": np.stack(accuracy, 1),
        "loss": np.stack(loss, 1),
        "chance": np.array(100 / data.classes),
    }
    if setting.stages:
        out |= {
            "stages": np.array(setting.stages),
            "decay_lr": np.array(DECAY),
            "final": np.stack(finals, 1),
            "decay_accuracy": np.stack(decays, 1),
        }
    return out


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mnist", default="", help="root of torchvision's MNIST; else skipped")
    parser.add_argument("--only", default="", help="settings whose name starts so")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, setting in SETTINGS.items():
        path = args.out / f"{name}.npz"
        if path.exists() or not name.startswith(args.only):
            continue
        if setting.data.startswith("mnist") and not args.mnist:
            print(f"{name}: skipped, no --mnist ROOT")
            continue
        start = time.perf_counter()
        out = train(name, setting, load(setting.data, args.mnist))
        np.savez_compressed(path, **{key: np.asarray(v, np.float32) for key, v in out.items()})
        best = np.nanmax(out["accuracy"], 1).round(1)
        print(f"{name}: {time.perf_counter() - start:.0f} s, best accuracies {best}", flush=True)


if __name__ == "__main__":
    main()
