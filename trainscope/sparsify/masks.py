"""Masks that hold while a network trains. `trainscope.networks.masks` says where they live."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainscope.networks.masks import SUFFIX, apply_masks, masks_of, set_masks

__all__ = ["SUFFIX", "apply_masks", "hold_masks", "masks_of", "set_masks"]


def hold_masks(network: nn.Module, optimizer: Optimizer) -> RemovableHandle:
    """Zero the masked weights after every step of an optimizer.

    Momentum and weight decay revive zeros; this undoes it at each step. Remove the handle to stop.
    """

    def after_step(*_: object) -> None:
        apply_masks(network)

    return optimizer.register_step_post_hook(after_step)
