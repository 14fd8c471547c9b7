"""Masks that keep zeroed weights at zero: where they live in a network, and how they are found.

A mask is a boolean buffer `NAME_mask` beside the parameter `NAME`, True where the weight
survives. As a buffer it moves with `.to()`, is copied with the network and is saved in its state
dict. `torch.nn.utils.prune` keeps `NAME_orig` and a float `NAME_mask`; those are understood too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SUFFIX = "_mask"


def set_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Register masks by parameter name and zero the weights they mask.

    Args:
        network: Changed in place.
        masks: For each parameter name, a boolean tensor of the parameter's shape, True where the
            weight survives.

    Raises:
        ValueError: A mask does not have its parameter's shape.
    """
    for name, mask in masks.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        weight = module.get_parameter(leaf)
        if mask.shape != weight.shape:
            raise ValueError(
                f"the mask of {name} is {tuple(mask.shape)}, not {tuple(weight.shape)}"
            )
        module.register_buffer(leaf + SUFFIX, mask.to(device=weight.device, dtype=torch.bool))
    apply_masks(network)


def masks_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the boolean masks of a network by the name of the parameter that each masks."""
    found: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        for leaf, buffer in module.named_buffers(recurse=False):
            if not leaf.endswith(SUFFIX):
                continue
            base = leaf.removesuffix(SUFFIX)
            for owner in (base, base + "_orig"):
                if owner in parameters and parameters[owner].shape == buffer.shape:
                    found[f"{prefix}.{owner}" if prefix else owner] = buffer.bool()
    return found


@torch.no_grad()
def apply_masks(network: nn.Module) -> None:
    """Set every masked weight to zero."""
    masks = masks_of(network)
    for name, weight in network.named_parameters():
        if name in masks:
            weight.mul_(masks[name])
