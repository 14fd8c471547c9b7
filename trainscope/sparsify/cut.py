"""Cuts channels out of modules, in place: weights, running statistics and masks alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainscope.networks.linear import is_turned
from trainscope.networks.masks import SUFFIX, own_masks


def keep_outputs(module: nn.Module, kept: Tensor) -> None:
    """Keep some outputs of a convolution (also depthwise), linear layer or norm.

    Args:
        module: Changed in place.
        kept: Indices [k] of the outputs that stay, sorted.
    """
    transposed = (isinstance(module, _ConvNd) and module.transposed) or is_turned(module)
    _select(module, "weight", 1 if transposed else 0, kept)
    for leaf in ("bias", "running_mean", "running_var"):
        _select(module, leaf, 0, kept)
    for attribute in ("out_channels", "out_features", "num_features", "num_parameters", "nf"):
        if hasattr(module, attribute):
            setattr(module, attribute, len(kept))


def keep_inputs(module: nn.Module, kept: Tensor) -> None:
    """Keep some inputs of a convolution or linear layer.

    A grouped convolution keeps equally many in each group; the places may differ.

    Args:
        module: Changed in place.
        kept: Indices [k] of the inputs that stay, sorted.
    """
    if isinstance(module, _ConvNd) and module.groups > 1:
        _keep_grouped_inputs(module, kept)
    else:
        transposed = (isinstance(module, _ConvNd) and module.transposed) or is_turned(module)
        _select(module, "weight", 0 if transposed else 1, kept)
    for attribute in ("in_channels", "in_features", "nx"):
        if hasattr(module, attribute):
            setattr(module, attribute, len(kept))


def keep_slices(module: nn.Module, leaf: str, axis: int, kept: Tensor) -> None:
    """Keep some slices of a parameter or buffer along an axis, and of its mask.

    Args:
        module: Changed in place.
        leaf: The tensor's name in it.
        axis: Which axis.
        kept: Indices [k] of the slices that stay, sorted.
    """
    _select(module, leaf, axis, kept)


def keep_depthwise(module: nn.Module, outputs: Tensor, inputs: Tensor) -> None:
    """Keep some channels of a depthwise convolution: outputs and the inputs they come from."""
    keep_outputs(module, outputs)
    module.in_channels = module.groups = len(inputs)  # type: ignore[assignment]


def _keep_grouped_inputs(module: _ConvNd, kept: Tensor) -> None:
    width, rows = module.in_channels // module.groups, module.out_channels // module.groups
    parts = [kept[kept // width == group] % width for group in range(module.groups)]
    places = torch.stack(parts).repeat_interleave(rows, dim=0)  # [outputs, inputs kept]
    for name, tensor in _tensors(module, "weight"):
        index = places.to(tensor.device)[(..., *[None] * (tensor.ndim - 2))]
        index = index.expand(-1, -1, *tensor.shape[2:])
        _replace(module, name, torch.gather(tensor.detach(), 1, index))


def _select(module: nn.Module, leaf: str, dim: int, kept: Tensor) -> None:
    for name, tensor in _tensors(module, leaf):
        _replace(module, name, tensor.detach().index_select(dim, kept.to(tensor.device)))


def _tensors(module: nn.Module, leaf: str) -> list[tuple[str, Tensor]]:
    """Return a parameter or buffer with its mask, also as `torch.nn.utils.prune` keeps them."""
    own = own_masks(module, binary=False) if leaf == "weight" else []
    names = dict.fromkeys((leaf, leaf + "_orig", leaf + SUFFIX, *own))
    found = [(name, getattr(module, name, None)) for name in names]
    return [(name, tensor) for name, tensor in found if isinstance(tensor, Tensor)]


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(module, name)
    last = old.ndim == 4 and not old.is_contiguous()
    last = last and old.is_contiguous(memory_format=torch.channels_last)
    tensor = tensor.contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        setattr(module, name, tensor)
