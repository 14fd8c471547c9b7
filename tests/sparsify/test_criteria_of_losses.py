"""Criteria told of losses that are no mean of their samples': the right values, in float64."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainscope.data import ProbeData
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.statistics import Source, Statistic
from trainscope.task import FromLoss

SAMPLES, CLASSES = 150, 3  # three batches of the statistics
WEIGHT = torch.tensor([1.0, 4.0, 20.0])


def samples():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 6, generator=generator)
    labels = torch.zeros(SAMPLES, dtype=torch.long)
    labels[torch.randperm(SAMPLES, generator=generator)[:12]] = torch.arange(12) % 2 + 1
    return inputs, labels


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)).eval()


class Classes(nn.Module):
    """A cross-entropy that weights classes, whatever the batch."""

    def forward(self, outputs, labels):
        return functional.cross_entropy(outputs, labels, weight=WEIGHT.to(outputs))


def contrast(outputs, labels):
    """Compare each sample with all others."""
    near = (outputs @ outputs.T) * 0.3
    same = labels[:, None] == labels
    return (functional.softplus(near) - same * near).mean()


LOSSES = {
    "class weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "in a module": Classes(),
    "pairs": contrast,
    "plain": nn.CrossEntropyLoss(),
    "sum with weights": nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"),
}


@cache
def dense(name):
    """Return the gradient, each sample's part of it and the Hessian, by autograd in float64."""
    inputs, labels = samples()
    module = network().double()
    loss = copy.deepcopy(LOSSES[name])
    loss = loss.double() if isinstance(loss, nn.Module) else loss
    weights = list(module.parameters())
    outputs = module(inputs.double())
    value = loss(outputs, labels) / (SAMPLES if "sum" in name else 1)
    slope = torch.autograd.grad(value, outputs, retain_graph=True)[0]
    gradient = torch.autograd.grad(value, weights, create_graph=True)
    rows = [
        torch.autograd.grad((o * s).sum(), weights)
        for o, s in zip((module(x.double()[None])[0] for x in inputs), slope, strict=True)
    ]
    squares = [SAMPLES * sum(row[k] ** 2 for row in rows) for k in range(len(weights))]
    flat = torch.cat([g.flatten() for g in gradient])
    hessian = torch.stack(
        [
            torch.cat([h.flatten() for h in torch.autograd.grad(g, weights, retain_graph=True)])
            for g in flat
        ]
    )
    return [g.detach() for g in gradient], squares, hessian


def collected(name, statistic):
    inputs, labels = samples()
    data = ProbeData("mine", batch=(inputs, labels), task=FromLoss(LOSSES[name], inputs=1))
    source = Source.of((6,), data, {statistic})
    found = source.collect(network(), {statistic}, "mine").values[statistic]
    return [found[each] for each, _ in network().named_parameters()]


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_loss_of_all_samples(name):
    """It was the mean over batches of 64: 30 % off for these class weights."""
    for found, right in zip(collected(name, Statistic.GRADIENT), dense(name)[0], strict=True):
        assert torch.allclose(found, right, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_squares_are_those_of_each_samples_share_of_the_loss(name):
    """Samples put forward alone have no weight: a weighted mean of one is its loss."""
    pairs = zip(collected(name, Statistic.SQUARED_GRADIENT), dense(name)[1], strict=True)
    for found, right in pairs:
        assert torch.allclose(found, right, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_product_with_the_hessian_is_that_of_the_loss_of_all_samples(name):
    weights = torch.cat([p.detach().flatten() for p in network().parameters()]).double()
    right = dense(name)[2] @ weights
    found = torch.cat([v.flatten() for v in collected(name, Statistic.HESSIAN_WEIGHT)])
    assert torch.allclose(found, right, rtol=1e-3, atol=1e-6)


def test_fisher_prunes_by_the_weights_of_classes():
    """What the rare class needs stays: without its weight other weights went."""
    inputs, labels = samples()
    plain, weighted = (
        sparsify(
            network(),
            Action("unstructured", ratio=0.5, criterion="fisher", scope="all"),
            (6,),
            data=ProbeData("mine", batch=(inputs, labels), task=FromLoss(LOSSES[name], inputs=1)),
        ).module
        for name in ("plain", "class weights")
    )
    _, squares, _ = dense("class weights")
    weight = network()[0].weight.detach().double()
    score = (squares[0] * weight**2).flatten()
    kept = torch.zeros(30, dtype=torch.bool)
    kept[score.argsort(descending=True)[:15]] = True
    assert torch.equal(weighted[0].weight_mask.flatten(), kept)
    assert not torch.equal(plain[0].weight_mask, weighted[0].weight_mask)
