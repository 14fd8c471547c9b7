"""Copies of networks, hooks and all."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def whole_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy, also where a hook computes weights: tensors that deepcopy refuses."""
    memo: dict[int, Tensor] = {}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)
