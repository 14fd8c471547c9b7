"""Gradients of a task's loss over pinned samples: their mean, and the mean of their squares."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ActionError
from trainscope.sparsify.statistics.shared_loss import parts_of_loss, shares
from trainscope.task import Batch, FromLoss
from trainscope.task.batches import beside

Named = dict[str, Tensor]


def mean_gradient(network: nn.Module, data: ProbeData, _: Collection[str] | None = None) -> Named:
    """Return the gradient of the mean loss by every parameter, float64.

    Args:
        network: In eval mode, its parameters asking for gradients.
        data: The pinned samples.
    """
    weights = dict(network.named_parameters())
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    count = 0
    whole = shares(network, data)
    if whole is None:
        parts = (summed_loss(network, data, batch) for batch in data.batches())
    else:
        parts = ((part, 0) for part in parts_of_loss(network, data, whole, data.batch_size))
    for loss, terms in parts:
        count += terms
        for name, slope in slopes(loss, weights).items():
            total[name] += slope.detach()
    return {name: masked(value / max(count, 1), name, network) for name, value in total.items()}


def squared_gradient(
    network: nn.Module, data: ProbeData, _: Collection[str] | None = None
) -> Named:
    """Return the mean over samples of the squares of their losses' gradients, float64.

    Each sample is put forward alone, as its gradient is asked for alone. Of a loss that is no mean
    of its samples', as one that weights them by their class, a sample's is its share of the whole
    one, so that the mean of the samples' gradients is that of the loss.
    """
    weights = dict(network.named_parameters())
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    count, samples = 0, len(data)
    whole = shares(network, data)
    if whole is None:
        parts = (summed_loss(network, data, sample) for sample in singles(data))
    else:
        parts = ((part, 0) for part in parts_of_loss(network, data, whole, 1))
    for loss, terms in parts:
        count += terms
        if not loss.requires_grad:  # none of its labels counts
            continue
        for name, slope in slopes(loss, weights).items():
            total[name] += slope.detach().double().square()
    scale = samples / max(count, 1) ** 2 if whole is None else samples
    return {name: masked(value * scale, name, network) for name, value in total.items()}


def singles(data: ProbeData) -> Iterator[Batch]:
    """Yield the pinned samples one by one."""
    for place in range(len(data)):
        yield data.task.select(data.batch, torch.tensor([place]))


def summed_loss(network: nn.Module, data: ProbeData, batch: Batch) -> tuple[Tensor, int]:
    """Return the sum of a batch's loss terms, and how many there are.

    A loss of the user's own that mixes the samples of a batch is one term, which counts for all.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    batch = beside(batch, like)
    outputs = data.task.outputs(network, batch)
    terms = data.task.losses(outputs, batch)
    size = data.task.size(batch)
    if isinstance(data.task, FromLoss) and terms.numel() == 1:
        return terms.sum() * size, size
    return terms.sum(), terms.numel()


def slopes(loss: Tensor, weights: Mapping[str, Tensor], *, graph: bool = False) -> Named:
    """Return the derivatives of a scalar by parameters; zeros where it does not depend on one.

    Raises:
        ActionError: It depends on none.
    """
    if not loss.requires_grad:
        raise ActionError("the loss does not depend on the weights, so it cannot rank them")
    found = torch.autograd.grad(
        loss, list(weights.values()), create_graph=graph, materialize_grads=True
    )
    return dict(zip(weights, found, strict=True))


def masked(values: Tensor, name: str, network: nn.Module) -> Tensor:
    """Return values of a parameter with zeros where a mask of ours holds its weight."""
    owner, _, leaf = name.rpartition(".")
    mask = getattr(network.get_submodule(owner), f"{leaf}_mask", None)
    if isinstance(mask, Tensor) and mask.shape == values.shape:
        return values * mask
    return values
