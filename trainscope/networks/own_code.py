"""Layers whose forward pass is not torch's own, and which of them are running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from trainscope.task.calls import ModuleCall, hooked

Told = TypeVar("Told")


def own_code(module: nn.Module) -> bool:
    """Tell whether a module's forward pass is somebody's own, and not one of torch's layers'."""
    if isinstance(module, torch.jit.ScriptModule):  # it has no code that could be looked at
        return False
    if "forward" in vars(module):  # put on this one object
        return True
    home = getattr(type(module).forward, "__module__", None) or "torch.nn.modules"
    return not home.startswith("torch.nn.modules")


@contextmanager
def running(layers: Iterable[tuple[nn.Module, Told]]) -> Iterator[list[Told]]:
    """Yield a list of what stands for the layers that are running, the innermost last.

    Args:
        layers: Layers, and what stands for each.
    """
    found: list[Told] = []

    def enter(call: ModuleCall[Told]) -> None:
        found.append(call.key)

    def leave(_: ModuleCall[Told]) -> None:
        found.pop()

    with hooked(((told, layer) for layer, told in layers), before=enter, after=leave, always=True):
        yield found
