"""How cost grows with samples, classes, weights and depth: exponents of `peers.py --growth`.

One residual network, untrained, is made larger along one axis at a time, by factors of two. An
exponent is the slope of log(seconds of the processor) over log(size), by least squares: 1 means
that twice as much takes twice as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import peers_curvature
import peers_first_order
import torch
from peers_cases import Case, images
from peers_race import race
from torch import Tensor, nn

from trainscope.data import ProbeData

PEERS = {
    "product": "kept graph",
    "top": "kept graph + eigsh",
    "jacobian": "batched rows + svdvals",
    "gradients": "vmap(grad)",
}
TASKS = {t.name: t for t in [*peers_curvature.TASKS, *peers_first_order.TASKS] if t.name in PEERS}


@dataclass(frozen=True)
class Size:
    """What grows: samples, outputs, channels (weights grow with their square), blocks."""

    samples: int = 32
    classes: int = 10
    width: int = 32
    depth: int = 4


AXES = {
    "samples": [replace(Size(), samples=n) for n in (16, 32, 64, 128)],
    "classes": [replace(Size(), classes=n, samples=8) for n in (8, 16, 32, 64)],
    "weights": [replace(Size(), width=n, samples=16) for n in (16, 32, 64, 128)],
    "depth": [replace(Size(), depth=n, samples=16) for n in (2, 4, 8, 16)],
}


class Residual(nn.Module):
    """Residual blocks of two convolutions each, at one width, on 16x16."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            for _ in range(size.depth)
        )
        self.head = nn.Linear(width, size.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + 0.2 * block(x))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def made(size: Size) -> Case:
    torch.manual_seed(0)
    network = Residual(size).eval()
    inputs, labels = images(1, 16)(size.samples, 1)
    data = ProbeData("digits", inputs, labels % size.classes, batch_size=size.samples)
    return Case("residual", "dense", network, data, [None] * len(list(network.parameters())))


def growth(threads: int) -> str:
    """Return the table of exponents."""
    torch.set_num_threads(threads)
    lines = ["| task | who | " + " | ".join(AXES) + " |", "|---|---|" + "---|" * len(AXES)]
    for name, task in TASKS.items():
        found: dict[str, list[str]] = {"trainscope": [], PEERS[name]: []}
        for axis in AXES:
            sizes = [_measured(size, axis) for size in AXES[axis]]
            times: dict[str, list[float]] = {who: [] for who in found}
            for size in AXES[axis]:
                results = race(made(size), task, None, repeats=3, seconds=10.0, only=tuple(found))
                for result in results:
                    times[result.who].append(result.cpu or math.nan)
            for who, row in found.items():
                row.append(f"{np.polyfit(np.log(sizes), np.log(times[who]), 1)[0]:.2f}")
        lines += [f"| {name} | {who} | {' | '.join(row)} |" for who, row in found.items()]
        print(lines[-2] + "\n" + lines[-1], flush=True)
    return "\n".join(lines)


def _measured(size: Size, axis: str) -> float:
    if axis == "weights":
        return float(sum(p.numel() for p in Residual(size).parameters()))
    return float(getattr(size, axis))
