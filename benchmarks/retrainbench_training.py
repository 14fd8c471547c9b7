"""The loop of RetrainBench: plain, so that a curve takes a second; the action is the package's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from retrainbench_data import Data
from torch import Tensor, nn
from torch.nn import functional as F

from trainscope.sparsify import masks_of

Rate = Callable[[float], float]
"""The LR as a function of the time in records, within a record too."""


@dataclass
class Curve:
    """What is recorded: before the first step, and after every record. Losses in nats."""

    accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)


@dataclass
class Trainee:
    """A network in training, with its optimizer, its masks and its records."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    held: tuple[list[Tensor], list[Tensor]]
    curve: Curve

    def copy(self) -> Trainee:
        """Return one that goes on from here by itself."""
        return copy.deepcopy(self)

    @property
    def diverged(self) -> bool:
        """Return whether the last loss is no number."""
        return not math.isfinite(self.curve.test_loss[-1])


def trainee(network: nn.Module, kind: str) -> Trainee:
    """Return a copy of a network to be trained: "sgd", "momentum" or "adamw"."""
    network = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    if kind == "adamw":
        made: torch.optim.Optimizer = torch.optim.AdamW(
            parameters, weight_decay=0.01, betas=(0.9, 0.99), fused=True
        )
    else:
        momentum = 0.9 if kind == "momentum" else 0.0
        made = torch.optim.SGD(parameters, 0.1, momentum, weight_decay=5e-4, fused=True)
    named = dict(network.named_parameters())
    masks = masks_of(network)
    held = [named[name] for name in masks], [mask.float() for mask in masks.values()]
    return Trainee(network, made, held, Curve())


@torch.no_grad()
def test(network: nn.Module, data: Data) -> tuple[float, float]:
    """Return the accuracy in percent and the loss in nats on the test set."""
    network.eval()
    outputs = network(data.x_test)
    network.train()
    targets = data.y_test.flatten()
    logits = outputs.flatten(0, -2)
    hits = int((logits.argmax(-1) == targets).sum())
    loss = float(F.cross_entropy(logits, targets))
    good = math.isfinite(loss)
    return (100.0 * hits / len(targets), loss) if good else (math.nan, math.nan)


def advance(one: Trainee, data: Data, seed: int, records: int, steps: int, rate: Rate) -> None:
    """Train for some more records; a network that diverges stops with NaN."""
    curve = one.curve
    if not curve.accuracy:
        accuracy, loss = test(one.network, data)
        curve.accuracy.append(accuracy)
        curve.test_loss.append(loss)
        curve.train_loss.append(math.nan)
        curve.lr.append(rate(0.0))
    parameters, masks = one.held
    for _ in range(records):
        if one.diverged:
            return
        record = len(curve.accuracy) - 1
        losses, rates = [], []
        for step, (x, y) in enumerate(data.batches(seed, record * steps, steps)):
            lr = rate(record + step / steps)
            one.optimizer.param_groups[0]["lr"] = lr
            loss = F.cross_entropy(one.network(x).flatten(0, -2), y.flatten())
            one.optimizer.zero_grad()
            loss.backward()
            one.optimizer.step()
            if masks:
                with torch.no_grad():
                    torch._foreach_mul_(parameters, masks)
            losses.append(loss.detach())
            rates.append(lr)
        accuracy, loss_of_test = test(one.network, data)
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            accuracy = loss_of_test = math.nan
        curve.accuracy.append(accuracy)
        curve.test_loss.append(loss_of_test)
        curve.train_loss.append(mean)
        curve.lr.append(sum(rates) / len(rates))


def constant(lr: float) -> Rate:
    """Return one LR."""
    return lambda time: lr


def steps_after(lr: float, first: int, drops: Sequence[tuple[int, float]]) -> Rate:
    """Return an LR that drops to shares of it, each some records after the first stage."""
    return lambda time: lr * min([1.0, *(share for at, share in drops if time >= first + at)])


def cooldown(lr: float, first: int, length: int) -> Rate:
    """Return an LR that falls in a line to (nearly) 0 after the first stage."""
    return lambda time: lr * min(1.0, max(1 - (time - first) / length, 0.0))


def cosine(lr: float, length: int, warmup: int = 0) -> Rate:
    """Return a cosine from the LR to 0, after a warm-up in a line."""

    def rate(time: float) -> float:
        if time < warmup:
            return lr * (time + 0.05) / (warmup + 0.05)
        return lr * (1 + math.cos(math.pi * (time - warmup) / (length - warmup))) / 2

    return rate
