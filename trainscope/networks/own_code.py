"""Layers whose forward pass is not torch's own."""

from __future__ import annotations

from torch import nn


def own_code(module: nn.Module) -> bool:
    """Tell whether a module's forward pass is somebody's own, and not one of torch's layers'."""
    return not type(module).forward.__module__.startswith("torch.nn.modules")
