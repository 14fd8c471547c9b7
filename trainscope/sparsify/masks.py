"""Masks that hold while a network trains. `trainscope.networks.masks` says where they live."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainscope.networks.masks import SUFFIX, apply_masks, masks_of, set_masks

__all__ = ["SUFFIX", "apply_masks", "hold_masks", "masks_of", "set_masks"]


def hold_masks(network: nn.Module, optimizer: Optimizer) -> RemovableHandle:
    """Zero the masked weights after every step of an optimizer.

    Momentum and weight decay revive zeros; this undoes it at each step. Remove the handle to stop.
    Masks may be replaced while they are held; weights that had none must be held again.
    """
    places = [place for name in masks_of(network) if (place := _place(network, name)) is not None]

    @torch.no_grad()
    def after_step(*_: object) -> None:
        # The modules were found once: to walk them at every step takes longer than the products.
        for module, weight, mask in places:
            module.get_parameter(weight).mul_(module.get_buffer(mask).bool())

    return optimizer.register_step_post_hook(after_step)


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str, str] | None:
    """Return the module of a masked parameter, and the leaf names of parameter and mask.

    None where the layer's own code alone masks it, at every forward pass.
    """
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    buffers = dict(module.named_buffers(recurse=False))
    mask = leaf + SUFFIX if leaf + SUFFIX in buffers else leaf.removesuffix("_orig") + SUFFIX
    return (module, leaf, mask) if mask in buffers else None
