"""Looking through what wraps networks and closures, and what cannot be looked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainscope.errors import ProbeError

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


FLAT_TYPES = frozenset({"FlatParameter", "FullyShardedDataParallel", "ShardedTensor"})
FLAT_MARKS = ("ds_id", "_is_sharded", "tensor_model_parallel")
"""Attributes of parameters by DeepSpeed's ZeRO-3, fairscale and Megatron."""


def refuse_flat(network: nn.Module, parameters: Iterable[Tensor] = ()) -> None:
    """Refuse a network whose parameters no process holds, whole or as parts of their own shape.

    Types are told by name: to import them takes longer than to ask.

    Args:
        network: Its modules and parameters are looked at.
        parameters: And these, an optimizer's.

    Raises:
        ProbeError: A part of it is one of those.
    """
    parts: list[Any] = [*network.modules(), *network.parameters(), *parameters]
    for part in parts:
        names = {base.__name__ for base in type(part).__mro__}
        kind = next(iter(sorted(names & FLAT_TYPES)), None)
        if isinstance(part, Tensor) and kind is None:
            kind = next((m for m in FLAT_MARKS if _is_marked(getattr(part, m, None))), None)
        if kind is not None:
            raise ProbeError(
                f"the network's parameters are partitioned over processes in a way ({kind}) that "
                "probes do not see through: shard it with fully_shard (FSDP2) or as DTensors, "
                "train with each process holding the whole network (DDP), or without the hook"
            )


def _is_marked(mark: object) -> bool:
    return mark is not None and mark is not False


def is_first_rank() -> bool:
    """Return whether this process is the one of a distributed job that measures."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_rank() == 0


def waits_for_ranks(network: nn.Module) -> bool:
    """Return whether a network in training mode would wait for other processes."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    together = there and torch.distributed.get_world_size() > 1
    return together and any(isinstance(m, nn.SyncBatchNorm) for m in network.modules())


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
