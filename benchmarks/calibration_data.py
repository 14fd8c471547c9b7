"""The data sets that `calibration_runs.py` trains on: small and varied."""

from __future__ import annotations

import dataclasses

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


def teacher_deep() -> Data:
    """Return 20 classes of a random network of two hidden layers: learned more slowly still."""
    g = torch.Generator().manual_seed(11)
    x = torch.randn(9000, 30, generator=g)
    hidden = torch.relu(x @ torch.randn(30, 40, generator=g) / 5)
    hidden = torch.tanh(hidden @ torch.randn(40, 40, generator=g) / 4)
    y = (hidden @ torch.randn(40, 20, generator=g)).argmax(1)
    return Data(x[:4000], y[:4000], x[4000:], y[4000:], 20)


def chain_three() -> Data:
    """Return next-token prediction from three tokens, of a random third-order Markov chain."""
    g = torch.Generator().manual_seed(13)
    v, count = 12, 12000
    logits = torch.randn(v, v, v, v, generator=g)
    logits += 1.5 * torch.randn(1, v, v, v, generator=g) + torch.randn(1, 1, v, v, generator=g)
    rows = logits.softmax(-1)
    tokens = [0, 1, 2]
    for _ in range(count):
        tokens.append(int(torch.multinomial(rows[tuple(tokens[-3:])], 1, generator=g)))
    t = torch.tensor(tokens)
    x = torch.cat([F.one_hot(t[i : i + count], v) for i in range(3)], 1).float()
    half = count // 2
    return Data(x[:half], t[3 : half + 3], x[half:], t[half + 3 : count + 3], v)


def blobs() -> Data:
    """Return 30 classes of three Gaussian clusters each, which overlap."""
    g = torch.Generator().manual_seed(17)
    centres = 1.1 * torch.randn(30, 3, 25, generator=g)
    y = torch.randint(30, (9000,), generator=g)
    x = centres[y, torch.randint(3, (9000,), generator=g)] + torch.randn(9000, 25, generator=g)
    return Data(x[:4000], y[:4000], x[4000:], y[4000:], 30)


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


def mnist_pairs(root: str) -> Data:
    """Return 100 classes: two digits of MNIST side by side, averaged to 14x28."""
    one, two = mnist(root, 0.0, image=False), mnist(root, 0.0, image=False)
    g = torch.Generator().manual_seed(19)

    def pair(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
        a, b = (torch.randint(len(y), (count,), generator=g) for _ in range(2))
        return torch.cat([x[a], x[b]], 1), 10 * y[a] + y[b]

    return Data(*pair(one.x, one.y, 5000), *pair(two.x_test, two.y_test, 4000), 100)


def text() -> Data:
    """Return the next letter of English prose from the six before it: Python's own manual."""
    from pydoc_data.topics import topics

    prose = " ".join(" ".join(topics[name].lower().split()) for name in sorted(topics))
    letters = "abcdefghijklmnopqrstuvwxyz .,'()_"
    codes = torch.tensor([letters.find(c) for c in prose]).clamp(-1)
    codes = codes[codes >= 0]
    steps = torch.randperm(len(codes) - 6, generator=torch.Generator().manual_seed(23))
    # The last tenth is for testing, so that no test letter stands inside a training window.
    cut = len(codes) * 9 // 10
    train, test = steps[steps < cut - 6][:10000], steps[steps >= cut][:5000]

    def half(at: Tensor) -> tuple[Tensor, Tensor]:
        windows = torch.stack([codes[at + i] for i in range(6)], 1)
        return F.one_hot(windows, len(letters)).flatten(1).float(), codes[at + 6]

    return Data(*half(train), *half(test), len(letters))


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
    if name == "mnist-pairs":
        return mnist_pairs(root)
    if name.startswith("mnist"):
        return mnist(root, 0.3 * name.endswith("noisy"), name.endswith("image"))
    if name.startswith("digits"):
        return digits(0.3 * name.endswith("noisy"))
    makers = (teacher, teacher_deep, spectrum, chain, chain_three, blobs, modular, text)
    return {maker.__name__.replace("_", "-"): maker for maker in makers}[name]()
