"""Losses that are no mean of their samples' losses: what each sample has of the whole one.

A loss that weights samples by their class, or compares them, is one number of all pinned samples.
Its derivative by the outputs of a sample says what the sample's own gradient is: the gradient of
these outputs along it. Those of all samples add up to the gradient of the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import TaskError
from trainscope.task import FromLoss
from trainscope.task.batches import beside, joined, mapped, tensors, working_weight

Shares = list[Tensor | None]


def shares(network: nn.Module, data: ProbeData) -> Shares | None:
    """Return the derivatives of the loss of all samples by the tensors of their outputs.

    Args:
        network: In eval mode.
        data: The pinned samples.

    Returns:
        A tensor for each of the outputs', with a row a sample, or None where the loss does not
        depend on it. None for all where the loss is a mean or a sum of its samples', or where
        outputs have no rows of samples.
    """
    task, count = data.task, len(data)
    if not isinstance(task, FromLoss) or count < 2:
        return None
    like = working_weight(network)
    with torch.no_grad():
        parts = [task.outputs(network, beside(batch, like)) for batch in data.batches()]
    try:
        outputs = joined(parts, "the pinned samples")
    except TaskError:  # of several shapes
        return None
    batch = beside(data.batch, like)
    if any(not leaf.ndim or len(leaf) != count for leaf in tensors(outputs)):
        return None
    if task.losses(outputs, batch).numel() != 1:
        return None
    outputs = mapped(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), outputs)
    leaves = tensors(outputs)
    floating = [leaf for leaf in leaves if leaf.is_floating_point()]
    with torch.enable_grad():
        loss = task.loss(outputs, batch)
    if not loss.requires_grad:
        return None
    found = iter(torch.autograd.grad(loss, floating, allow_unused=True))
    return [next(found) if leaf.is_floating_point() else None for leaf in leaves]


def parts_of_loss(
    network: nn.Module, data: ProbeData, whole: Shares, size: int
) -> Iterator[Tensor]:
    """Yield scalars whose gradients add up to that of the loss: of so many samples each."""
    like = working_weight(network)
    for start in range(0, len(data), size):
        rows = slice(start, min(start + size, len(data)))
        places = torch.arange(rows.start, rows.stop)
        batch = beside(data.task.select(data.batch, places), like)
        outputs = tensors(data.task.outputs(network, batch))
        pairs = zip(outputs, whole, strict=True)
        terms = [(leaf * share[rows]).sum() for leaf, share in pairs if share is not None]
        yield torch.stack(terms).sum() if terms else torch.zeros(())


def at_once(network: nn.Module, data: ProbeData) -> ProbeData:
    """Return the samples as one batch where their loss is one of all of them."""
    return data if shares(network, data) is None else replace(data, batch_size=len(data))
