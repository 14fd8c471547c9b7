"""Layers whose forward pass is not torch's own."""

from __future__ import annotations

import torch
from torch import nn


def own_code(module: nn.Module) -> bool:
    """Tell whether a module's forward pass is somebody's own, and not one of torch's layers'."""
    if isinstance(module, torch.jit.ScriptModule):  # it has no code that could be looked at
        return False
    if "forward" in vars(module):  # put on this one object
        return True
    home = getattr(type(module).forward, "__module__", None) or "torch.nn.modules"
    return not home.startswith("torch.nn.modules")
