"""All processes of a job measure the same network on the same samples, or none does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.processes.ranks import Ranks
from trainscope.probes.processes.shards import parts_of
from trainscope.task.batches import mapped, tensors

OR = "or let each measure alone, inside trainscope.probes.alone()"


def alike(network: nn.Module, data: ProbeData, ranks: Ranks) -> ProbeData:
    """Make sure that all processes measure the same; return the data, which are the first one's.

    Random states become the same too, and buffers the first process's, as under DDP.

    Args:
        network: Lent by `untouched`, which puts back what changes.
        data: The samples and the seed.
        ranks: The processes.

    Raises:
        ProbeError: The network, or the seed, is another one in another process.
    """
    if ranks.count == 1:
        return data
    parts = parts_of(network)
    named = list(network.named_parameters())
    weights = [p for name, p in named if name not in parts or parts[name].mesh is None]
    buffers = list(network.buffers())
    shapes = [(name, *(parts[name].shape if parts else p.shape)) for name, p in named]
    kind, leaves = type(network).__name__, tensors(data.batch)
    held = ranks.all((kind, shapes, _sums(weights), data.seed, _sums(buffers), _sums(leaves)))
    for rank, there in enumerate(held):
        if there[:2] != held[0][:2]:
            raise ProbeError(
                f"rank {rank} has another network than rank 0: measure the same one in each, {OR}"
            )
        if there[2] != held[0][2]:
            raise ProbeError(
                f"rank {rank} has other weights than rank 0: load the same ones in each, {OR}"
            )
        if there[3] != held[0][3]:
            raise ProbeError(
                f"rank {rank} has the seed {there[3]} and rank 0 {held[0][3]}: give the same one "
                f"in each, {OR}"
            )
    torch.manual_seed(data.seed)
    if any(there[4] != held[0][4] for there in held):
        with torch.no_grad():
            first = ranks.first([buffer.cpu() for buffer in buffers])
            for buffer, value in zip(buffers, first, strict=True):
                buffer.copy_(value)
    if any(there[5] != held[0][5] for there in held):
        batch = ranks.first(mapped(lambda leaf: leaf.cpu(), data.batch))
        data = replace(data, batch=batch).to(leaves[0].device)
    return data


@torch.no_grad()
def _sums(many: Iterable[Tensor]) -> str:
    """Return sums that tell tensors apart, as text, in which NaN is itself."""
    found: list[tuple[list[int], float, float]] = []
    for each in many:
        values = each.detach()
        if not values.is_floating_point():
            values = values.to(torch.float64)
        norm = float(torch.linalg.vector_norm(values, dtype=torch.float64))
        found.append((list(each.shape), float(values.sum(dtype=torch.float64)), norm))
    return repr(found)
