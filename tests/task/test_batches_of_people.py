"""Batches with more in them than inputs and labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import trainscope
from trainscope.errors import CheckpointError

SAMPLES = 24


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(SAMPLES, generator=generator, dtype=torch.float64) + 0.1
    return x, torch.randint(4, (SAMPLES,), generator=generator), weights


def weighted(outputs, labels, weights):
    return (F.cross_entropy(outputs, labels, reduction="none") * weights).mean()


def norm_of(loss):
    model = network()
    gradients = torch.autograd.grad(loss(model), list(model.parameters()))
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def test_a_loss_of_three_arguments_gets_the_weights_of_the_samples():
    x, labels, weights = data()
    expected = norm_of(lambda model: weighted(model(x), labels, weights))
    found = trainscope.measure(
        network(),
        data=DataLoader(list(zip(x, labels, weights, strict=True)), 8),
        loss=weighted,
        metric=lambda outputs, labels, weights: (weights * (outputs.argmax(1) == labels)).sum(),
        probes=["gradient"],
        budget=None,
    )["gradient"]
    assert found.value("norm") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("index", ["before", "after"])
def test_an_index_beside_the_only_image_of_a_dictionary_is_no_input(index):
    x, labels, _ = data()
    rows = [
        {"index": k, "image": a, "label": b}
        if index == "before"
        else {"image": a, "label": b, "index": k}
        for k, (a, b) in enumerate(zip(x, labels, strict=True))
    ]
    expected = norm_of(lambda model: F.cross_entropy(model(x), labels))
    found = trainscope.measure(
        network(), data=DataLoader(rows, 8), probes=["gradient"], budget=None
    )["gradient"]
    assert found.value("norm") == pytest.approx(expected, rel=1e-6)


def test_what_a_network_does_not_take_is_said_of_single_numbers_too():
    x, labels, _ = data()
    rows = [(k, a, b) for k, (a, b) in enumerate(zip(x, labels, strict=True))]
    with pytest.raises(CheckpointError, match="does not take inputs of one number each"):
        trainscope.measure(network(), data=DataLoader(rows, 8), probes=["gradient"])
