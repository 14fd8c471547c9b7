"""Copies of networks, hooks and all."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from trainscope.errors import CheckpointError
from trainscope.foreign import reason

_OWN = ("_parameters", "_buffers", "_modules")
MOST_DEPTH = 4
"""Objects inside each other in which tensors are looked for."""


def whole_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy, also where attributes hold tensors that deepcopy refuses.

    Hooks compute weights, and a forward pass may keep its activations.

    Raises:
        CheckpointError: An attribute with tensors in it cannot be copied.
    """
    memo: dict[int, Tensor] = {}
    for module in network.modules():
        for value in _pytree.tree_leaves(list(vars(module).values())):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    return deep_copy(network, memo)


def with_dense_gradients(network: nn.Module) -> nn.Module:
    """Return a network whose embeddings have gradients as their weights are, which masks need.

    Args:
        network: A copy of one's own, changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
    return network


def deep_copy(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy that shares what cannot be copied and holds no tensors: locks, loggers.

    Args:
        network: Not touched.
        memo: What stands for some objects, by their id.

    Raises:
        CheckpointError: An attribute with tensors in it cannot be copied.
    """
    known = dict(memo or {})
    try:
        return _copied(network, dict(known))
    except Exception:
        for name, module in network.named_modules():
            for field, value in vars(module).items():
                if field not in _OWN:
                    _share(value, known, f"{name}.{field}" if name else field)
    try:
        return _copied(network, known)
    except Exception as error:  # whatever a class's own code raises
        raise _uncopied(type(network).__name__, "", error) from error


def _copied(network: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a deep copy whose weights are leaves, as those of a copy of TorchScript are not."""
    if not any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return copy.deepcopy(network, memo)
    with torch.no_grad():
        made = copy.deepcopy(network, memo)
    for own, other in zip(network.parameters(), made.parameters(), strict=True):
        other.requires_grad_(own.requires_grad)
    return made


def _share(value: Any, memo: dict[int, Any], place: str) -> None:
    """Let a memo hand out the parts of a value that cannot be copied."""
    try:
        copy.deepcopy(value, dict(memo))
    except Exception as error:
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple | set):
            for part in parts:
                _share(part, memo, place)
        elif isinstance(value, nn.Module):
            return  # looked into as a module of its own, or refused
        elif _holds_tensors(value, MOST_DEPTH):
            raise _uncopied("the network", place, error) from error
        else:
            memo[id(value)] = value


def _holds_tensors(value: Any, depth: int) -> bool:
    """Tell whether there is a tensor or a module in an object, as far as it is looked into."""
    if isinstance(value, Tensor | nn.Module):
        return True
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, list | tuple | set):
        inside = list(value)
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    return depth > 0 and any(_holds_tensors(each, depth - 1) for each in inside)


def _uncopied(name: str, place: str, error: Exception) -> CheckpointError:
    where = f" its attribute '{place}'" if place else " it"
    return CheckpointError(
        f"{name} cannot be copied, for{where} cannot ({reason(error)}): take that out of it, or "
        "give its class a __deepcopy__"
    )
