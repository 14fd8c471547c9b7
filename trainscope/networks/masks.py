"""Masks that keep zeroed weights at zero: where they live in a network, and how they are found.

A mask is a boolean buffer `NAME_mask` beside the parameter `NAME`, True where the weight
survives. As a buffer it moves with `.to()`, is copied with the network and is saved in its state
dict. `torch.nn.utils.prune` keeps `NAME_orig` and a float `NAME_mask`; those are understood too,
and so are the masks of layers whose own code multiplies by them, whatever they are called: a buffer
or a frozen parameter of zeros and ones, with "mask" in its name, of the shape of the weight; and
those of a parametrization (torch.ao's, or one's own) that multiplies its weight by such a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from trainscope.networks.own_code import own_code

SUFFIX = "_mask"


def set_masks(network: nn.Module, masks: Mapping[str, Tensor], *, persistent: bool = True) -> None:
    """Register masks by parameter name and zero the weights they mask.

    Args:
        network: Changed in place.
        masks: For each parameter name, a boolean tensor of the parameter's shape, True where the
            weight survives.
        persistent: Whether the masks belong to the state dict, and so to the network's identity.

    Raises:
        ValueError: A mask does not have its parameter's shape.
    """
    for name, mask in masks.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        if leaf in module._buffers:  # statistics of a norm: nothing trains them
            continue
        weight = module.get_parameter(leaf)
        if mask.shape != weight.shape:
            raise ValueError(
                f"the mask of {name} is {tuple(mask.shape)}, not {tuple(weight.shape)}"
            )
        mask = mask.to(device=weight.device, dtype=torch.bool)
        held = module._parameters.get(leaf + SUFFIX)
        if held is not None:  # as some layers keep their own
            held.data = mask.to(held.dtype)
        else:
            module.register_buffer(leaf + SUFFIX, mask, persistent=persistent)
    apply_masks(network)


def keep_masks(network: nn.Module) -> None:
    """Make every mask part of the state dict; a buffer that masks no parameter is let be."""
    for module in network.modules():
        module._non_persistent_buffers_set -= {
            leaf
            for leaf in module._non_persistent_buffers_set
            if leaf.endswith(SUFFIX)
            and {leaf.removesuffix(SUFFIX), leaf.removesuffix(SUFFIX) + "_orig"}
            & module._parameters.keys()
        }


def drop_masks(network: nn.Module) -> None:
    """Remove every mask of ours: the weights are free to grow."""
    masked = masks_of(network)
    for prefix, module in network.named_modules():
        if isinstance(module, ParametrizationList) and _parametrised(module):
            for part in module:
                for mask in (*part.buffers(), *part.parameters()):
                    mask.data.fill_(1)
        for leaf in [leaf for leaf in module._buffers if leaf.endswith(SUFFIX)]:
            base = leaf.removesuffix(SUFFIX)
            if (f"{prefix}.{base}" if prefix else base) not in masked:
                continue
            if own_code(module):  # which may multiply by it
                setattr(module, leaf, torch.ones_like(getattr(module, leaf)))
            else:
                delattr(module, leaf)


def masks_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the boolean masks of a network by the name of the parameter that each masks.

    The names are those of `named_parameters`: of a parameter that several layers share, the first.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found: dict[str, Tensor] = {}
    for module in network.modules():
        for leaf, buffer in module.named_buffers(recurse=False):
            if not leaf.endswith(SUFFIX):
                continue
            base = leaf.removesuffix(SUFFIX)
            for owner in (base, base + "_orig"):
                parameter = module._parameters.get(owner)
                if parameter is not None and parameter.shape == buffer.shape:
                    name = names[id(parameter)]
                    mask = buffer.bool()
                    found[name] = found[name] & mask if name in found else mask
        for leaf in own_masks(module):
            name, mask = names[id(_weight(module))], getattr(module, leaf).bool()
            found[name] = found[name] & mask if name in found else mask
        if isinstance(module, ParametrizationList):
            for mask in _parametrised(module):
                name = names[id(module.original)]
                found[name] = found[name] & mask if name in found else mask
    return found


@torch.no_grad()
def _parametrised(parts: ParametrizationList) -> list[Tensor]:
    """Return the masks of a weight that nothing but masks are a parametrization of.

    Each part has one tensor, of the weight's shape and with "mask" in its name, and makes that of
    ones: one that drops where its mask is 1 is none.
    """
    original = parts._parameters.get("original")
    if original is None:
        return []
    found = []
    for part in parts:
        held = [*part.named_buffers(), *part.named_parameters()]
        if len(held) != 1 or "mask" not in held[0][0].lower():
            return []
        mask = held[0][1]
        if mask.shape != original.shape or not _is_binary(mask):
            return []
        if not mask.is_meta and not torch.equal(part(torch.ones_like(original)), mask.to(original)):
            return []
        found.append(mask.bool())
    return found


def own_masks(module: nn.Module, *, binary: bool = True) -> list[str]:
    """Return the leaf names of the masks that a layer's own code keeps beside its weight.

    Args:
        module: The layer.
        binary: Whether they must be zeros and ones; else their names and shapes tell.
    """
    weight = _weight(module) if own_code(module) else None
    if weight is None:
        return []
    held = {n: p for n, p in module._parameters.items() if p is not None and not p.requires_grad}
    return [
        leaf
        for leaf, tensor in (*module._buffers.items(), *held.items())
        if "mask" in leaf.lower()
        and tensor is not None
        and tensor.shape == weight.shape
        and (not binary or _is_binary(tensor))
    ]


def mask_parameters(network: nn.Module) -> set[int]:
    """Return the ids of the parameters that are masks."""
    return {
        id(module._parameters[leaf])
        for module in network.modules()
        for leaf in own_masks(module)
        if leaf in module._parameters
    }


def _weight(module: nn.Module) -> nn.Parameter | None:
    found = module._parameters.get("weight")
    return module._parameters.get("weight_orig") if found is None else found


def _is_binary(tensor: Tensor) -> bool:
    if tensor.dtype == torch.bool or tensor.is_meta:
        return True
    return bool(((tensor == 0) | (tensor == 1)).all())


@torch.no_grad()
def apply_masks(network: nn.Module) -> None:
    """Set every masked weight to zero."""
    masks = masks_of(network)
    for name, weight in network.named_parameters():
        if name in masks:
            weight.mul_(masks[name])
