"""Layers whose forward pass is not torch's own."""

from __future__ import annotations

from torch import nn


def own_code(module: nn.Module) -> bool:
    """Tell whether a module's forward pass is somebody's own, and not one of torch's layers'."""
    if "forward" in vars(module):  # put on this one object
        return True
    forward = getattr(type(module), "forward", None)  # TorchScript has none to look at
    home = getattr(forward, "__module__", None) or "torch.nn.modules"
    return not home.startswith("torch.nn.modules")
