"""Looking through what wraps networks, optimizers and closures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

StepArguments = tuple[tuple[Any, ...], dict[str, Any]]


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside DDP, DataParallel and `torch.compile`."""
    while True:
        inner = getattr(network, "_orig_mod", None)
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = network.module
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def unwrap_optimizer(optimizer: Optimizer) -> Optimizer:
    """Return the torch optimizer inside wrappers that keep it as `.optimizer`."""
    inner = getattr(optimizer, "optimizer", None)
    return unwrap_optimizer(inner) if isinstance(inner, Optimizer) else optimizer


def is_first_rank() -> bool:
    """Return whether this process is the one of a distributed job that measures."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_rank() == 0


def after_closure(arguments: StepArguments, look: Callable[[], None]) -> StepArguments | None:
    """Return the arguments of an optimizer's step with its closure watched, None if it has none.

    A closure (Lightning's, LBFGS's) computes the gradients inside the step; `look` is called when
    it has returned for the first time.

    Args:
        arguments: As a step pre-hook gets them: the optimizer comes first.
        look: Looks at the gradients.
    """
    args, kwargs = arguments
    place = next((i for i, value in enumerate(args) if i and callable(value)), None)
    closure = kwargs.get("closure") if place is None else args[place]
    if closure is None:
        return None
    calls = 0

    def watched() -> Any:
        nonlocal calls
        result = closure()
        calls += 1
        if calls == 1:
            look()
        return result

    if place is None:
        return args, {**kwargs, "closure": watched}
    return (*args[:place], watched, *args[place + 1 :]), kwargs
