"""Copies of networks, hooks and all."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.utils import _pytree


def whole_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy, also where attributes hold tensors that deepcopy refuses.

    Hooks compute weights, and a forward pass may keep its activations.
    """
    memo: dict[int, Tensor] = {}
    for module in network.modules():
        for value in _pytree.tree_leaves(list(vars(module).values())):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)
