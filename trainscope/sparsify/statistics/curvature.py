"""Products with the Hessian of a task's loss over pinned samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.networks.masks import masks_of
from trainscope.networks.weights import MULTIPLIED, weights_in
from trainscope.sparsify.statistics.gradients import Named, mean_gradient, slopes, summed_loss
from trainscope.sparsify.statistics.shared_loss import at_once

DRAWS = 64
"""Random vectors of Hutchinson's estimator of the Hessian's diagonal."""


def hessian_gradient(
    network: nn.Module, data: ProbeData, _: Collection[str] | None = None
) -> Named:
    """Return H g by the weights of all layers that multiply, float64; biases and norms are held."""
    names = [weight.name for weight in weights_in(network) if weight.kind in MULTIPLIED]
    gradient = mean_gradient(network, data)
    return hessian_product(network, data, {name: gradient[name] for name in names})


def hessian_weight(network: nn.Module, data: ProbeData, _: Collection[str] | None = None) -> Named:
    """Return H w by all parameters, float64."""
    return hessian_product(
        network, data, {name: p.detach().double() for name, p in network.named_parameters()}
    )


def hessian_product(network: nn.Module, data: ProbeData, along: Named) -> Named:
    """Return the Hessian of the mean loss, by the parameters named, times a vector, float64."""
    named = dict(network.named_parameters())
    weights = {name: named[name] for name in along}
    total = {name: torch.zeros_like(value) for name, value in along.items()}
    count, data = 0, at_once(network, data)
    with twice_differentiable():
        for batch in data.batches():
            loss, terms = summed_loss(network, data, batch)
            count += terms
            for name, part in _product(slopes(loss, weights, graph=True), weights, along).items():
                total[name] += part
    return {name: value / max(count, 1) for name, value in total.items()}


def hessian_diagonal(
    network: nn.Module, data: ProbeData, _: Collection[str] | None = None
) -> Named:
    """Return Hutchinson's estimate of the Hessian's diagonal: the mean of z * (H z), float64.

    The entries of z are 1 or -1, zero where a mask holds a weight; `DRAWS` of them, the same for
    every batch of samples.
    """
    weights = dict(network.named_parameters())
    masks = masks_of(network)
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    count, data = 0, at_once(network, data)
    with twice_differentiable():
        for batch in data.batches():
            loss, terms = summed_loss(network, data, batch)
            count += terms
            gradient = slopes(loss, weights, graph=True)
            for draw in range(DRAWS):
                along = signs(weights, masks, draw)
                for name, part in _product(gradient, weights, along).items():
                    total[name] += along[name] * part
    return {name: value / (max(count, 1) * DRAWS) for name, value in total.items()}


def signs(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], draw: int) -> Named:
    """Return one vector of random signs, which the number of the draw decides, float64."""
    generator = torch.Generator().manual_seed(draw)
    found = {}
    for name, weight in weights.items():
        bits = torch.randint(2, weight.shape, generator=generator, dtype=torch.int8)
        values = (2 * bits - 1).to(weight.device, torch.float64)
        found[name] = values * masks[name] if name in masks else values
    return found


def _product(gradient: Named, weights: Mapping[str, Tensor], along: Named) -> Named:
    dot = torch.stack([(gradient[n] * along[n].to(weights[n])).sum() for n in weights]).sum()
    if not dot.requires_grad:  # a gradient that is constant
        return {name: torch.zeros_like(along[name]) for name in weights}
    found = torch.autograd.grad(
        dot, list(weights.values()), retain_graph=True, materialize_grads=True
    )
    return {name: each.double() for name, each in zip(weights, found, strict=True)}


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Use attention that has second derivatives: the fused kinds have none."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
