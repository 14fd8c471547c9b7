"""Networks without numbers: built, copied and run on the meta device, for their shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from trainscope.networks.copies import deep_copy
from trainscope.networks.undo import given_back, is_plain
from trainscope.task.modes import evaluating

Shapes = dict[str, tuple[int, ...]]
"""The shape of every tensor of a state dict, by name."""

LIGHT = 4e9
"""Weights times values of an input up to which a pass is made with numbers. It takes a moment,
where the first pass on the meta device has torch import its compiler, which takes seconds."""

_MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand, torch.full})

_FILLERS = frozenset(
    {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_, Tensor.clamp_}
    | {Tensor.mul_, Tensor.add_, Tensor.erfinv_}
)

_INITIALISERS = frozenset({init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_})

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class weights_on_meta(TorchFunctionMode):  # noqa: N801 - a context manager
    """Inside, tensors that layers make for their weights have shapes but take no memory.

    Unlike `torch.device("meta")` it leaves `torch.arange` and `torch.tensor` alone, on whose values
    some constructors (RegNet's widths, Swin's relative positions) depend.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send the makers of weights to the meta device, and let initialisers pass."""
        options = dict(kwargs or {})
        # There is nothing to fill, and torch is slow at it.
        if func in _FILLERS and args[0].is_meta:
            return args[0]
        if func in _INITIALISERS and options["tensor"].is_meta:
            return options["tensor"]
        if func in _MAKERS and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def meta_copy(module: nn.Module) -> nn.Module:
    """Return a copy on the meta device, in eval mode and without hooks; the module is not touched.

    No weight is copied. Parameters that share memory stay shared in the copy.
    """
    return _copy(module, lambda tensor: torch.empty_like(tensor, device="meta"))


def is_light(module: nn.Module, values: int) -> bool:
    """Tell whether a pass with numbers takes but a moment, on the CPU.

    Args:
        module: Any.
        values: Numbers in the inputs of one pass.
    """
    held = [*module.parameters(), *module.buffers()]
    plain = all(
        tensor.is_meta or (is_plain(tensor) and tensor.device.type == "cpu") for tensor in held
    )
    exact = all(
        tensor.dtype in (torch.float32, torch.float64) or not tensor.is_floating_point()
        for tensor in held
    )
    return plain and exact and sum(tensor.numel() for tensor in held) * values <= LIGHT


def light_copy(module: nn.Module) -> nn.Module:
    """Return a copy with numbers of its own, in eval mode and without hooks.

    They are zeros where the module, which is not touched, has none.
    """
    return _copy(module, _numbers)


def bare_copy(module: nn.Module, values: int) -> nn.Module:
    """Return a copy for passes whose numbers do not matter: on the meta device where it is large.

    Args:
        module: Not touched.
        values: As `is_light` takes it.
    """
    return light_copy(module) if is_light(module, values) else meta_copy(module)


def _numbers(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.clone()


@contextmanager
def shared_copy(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a copy that shares the module's numbers, in eval mode and without hooks.

    What is written to the copy is undone on leaving. A large network is not copied for that.
    """
    held = [*module.parameters(), *module.buffers()]
    for part in module.modules():
        held += [value for value in vars(part).values() if isinstance(value, Tensor)]
    with given_back(held):
        yield _copy(module, lambda tensor: tensor)


@torch.no_grad()
def _copy(module: nn.Module, twin_of: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {}
    for part in module.modules():
        # Pruning and weight norm keep computed weights as plain attributes, which deepcopy refuses.
        held = [*part._parameters.values(), *part._buffers.values(), *vars(part).values()]
        for tensor in held:
            if isinstance(tensor, Tensor) and id(tensor) not in memo:
                twin = twin_of(tensor.detach())
                keep = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if keep else twin
    copied = deep_copy(module, memo)
    for part in copied.modules():
        for hooks in _HOOKS:
            getattr(part, hooks).clear()
    return evaluating(copied)
