"""What a Jacobian is taken by: a batch's floating-point inputs, or the embeddings of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainscope.task import Batch
from trainscope.task.batches import size_of, tensors
from trainscope.task.calls import ModuleCall, hooked


def floating(batch: Batch) -> list[Tensor]:
    """Return a batch's floating-point tensors that have an axis of samples."""
    count = size_of(batch)
    return [
        leaf
        for leaf in tensors(batch)
        if leaf.is_floating_point() and leaf.ndim and len(leaf) == count
    ]


def token_ids(batch: Batch) -> Tensor | None:
    """Return the token ids of a batch: `input_ids`, or its first whole numbers of two axes."""
    if isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), Tensor):
        found: Tensor = batch["input_ids"]
        return found
    return next((x for x in tensors(batch) if not x.is_floating_point() and x.ndim > 1), None)


@contextmanager
def embedded(network: nn.Module, tokens: Tensor | None) -> Iterator[list[Tensor]]:
    """Collect what embedding layers make of the token ids, as tensors to differentiate by."""
    found: list[Tensor] = []

    def begin(call: ModuleCall[int]) -> Tensor | None:
        given = call.args
        if tokens is None or not given or given[0].shape != tokens.shape:
            return None
        if not torch.equal(given[0].to(tokens), tokens):
            return None
        found.append(call.out.detach().requires_grad_())
        return found[-1]

    layers = [] if tokens is None else [m for m in network.modules() if isinstance(m, nn.Embedding)]
    with hooked(enumerate(layers), after=begin):
        yield found
