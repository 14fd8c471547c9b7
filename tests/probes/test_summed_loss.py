"""A loss with reduction="sum": what is measured is of the mean, and what follows for the LR."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trainscope
from trainscope.records.stability import SUMMED, stable_lr

SAMPLES = 24


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (SAMPLES,), generator=generator)


def measured(loss):
    return trainscope.measure(
        network(), data=data(), loss=loss, probes=["gradient", "curvature"], budget=None
    )


def top_of_batch(count):
    """Return the largest eigenvalue of the Hessian of a batch's summed loss, of count copies."""
    model, (x, y) = network(), data()
    names, parameters = zip(*model.named_parameters(), strict=True)
    flat = torch.cat([p.detach().flatten() for p in parameters])

    def loss(vector):
        parts = torch.split(vector, [p.numel() for p in parameters])
        held = {n: v.view(p.shape) for n, v, p in zip(names, parts, parameters, strict=True)}
        outputs = torch.func.functional_call(model, held, (x,))
        return F.cross_entropy(outputs, y, reduction="sum") * count / SAMPLES

    return float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1])


def own_sum(outputs, targets):
    return ((outputs - F.one_hot(targets, 4)) ** 2).sum()


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="sum"), own_sum])
def test_a_sum_is_said_by_every_probe(loss):
    for measurement in measured(loss).values():
        assert "is the sum of its samples' losses" in measurement.notes[SUMMED]


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0, 0.5])),
    ],
)
def test_a_mean_is_no_sum(loss):
    for measurement in measured(loss).values():
        assert SUMMED not in measurement.notes


def test_the_stable_lr_is_that_of_the_loss_that_is_trained():
    curvature = measured(nn.CrossEntropyLoss(reduction="sum"))["curvature"]
    settings = {"optimizer": "sgd", "momentum": 0.9, "batch_size": 64}
    limit = stable_lr(curvature, settings)
    assert limit.value == pytest.approx(2 * 1.9 / top_of_batch(64), rel=1e-3)
    assert "n = 64 samples" in limit.rule
    unknown = stable_lr(curvature, {})
    assert unknown.value is None
    assert "divide this limit by the samples" in unknown.missing
