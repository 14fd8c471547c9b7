"""Low-rank adapters that keep a network's masks, while they train and when they are merged.

An adapted weight is `mask * (W + scale * B A)`: the product is masked in every forward pass, so the
merged network is the one that was trained, and what was zero stays zero. Libraries that add the
product beside the layer train `mask * W + scale * B A`, which is dense.
"""

from __future__ import annotations

import math
from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)

from trainscope.errors import ActionError
from trainscope.networks.masks import apply_masks, masks_of
from trainscope.networks.weights import (
    ATTENTION,
    BILINEAR,
    CONVOLUTION,
    LINEAR,
    RECURRENT,
    Weight,
    weights_in,
)
from trainscope.training.settings import LoRA

_BEFORE = "_trainable_before_adapters"


class LowRank(nn.Module):
    """Makes an adapted weight of the frozen one: a parametrization of torch's.

    Args:
        weight: [n, ...], as the layer stores it.
        rank: Of the product.
        scale: What the product is multiplied by.
        mask: Of the weight's shape, True where it survives; None where all do.
        generator: Draws A; B starts at zero, so that the weight is what it was.
    """

    mask: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        scale: float,
        mask: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        bound = 1 / math.sqrt(columns)
        drawn = torch.rand(rank, columns, generator=generator, dtype=torch.float64)
        self.lora_A = nn.Parameter((bound * (2 * drawn - 1)).to(weight))
        self.lora_B = nn.Parameter(weight.new_zeros(rows, rank))
        self.scale = scale
        # The layer's own buffer is what is saved; this is the same tensor again.
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight."""
        adapted = weight + self.scale * (self.lora_B @ self.lora_A).view_as(weight)
        return adapted if self.mask is None else adapted * self.mask


def add_adapters(network: nn.Module, lora: LoRA, *, seed: int = 0) -> tuple[str, ...]:
    """Put adapters on a network in place and freeze everything else.

    Its outputs are what they were until the adapters are trained. Masks are taken as they are now.

    Args:
        network: With masks or without.
        lora: Rank, scale and targets.
        seed: Of the draw.

    Returns:
        The names of the adapted weights.

    Raises:
        ActionError: No weight is meant, or one that is named cannot be adapted.
    """
    chosen = _targets(network, lora)
    masks = masks_of(network)
    generator = torch.Generator().manual_seed(seed)
    before = [name for name, each in network.named_parameters() if each.requires_grad]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for weight in chosen:
        leaf = weight.name.rpartition(".")[2]
        mask = masks.get(weight.name)
        adapter = LowRank(weight.tensor, lora.rank, lora.scale, mask, generator)
        register_parametrization(weight.module, leaf, adapter)
    network.__dict__[_BEFORE] = tuple(before)
    return tuple(weight.name for weight in chosen)


def merge_adapters(network: nn.Module) -> nn.Module:
    """Make plain weights of adapted ones, with every mask held, and return the network.

    Adapters of `add_adapters` leave a network that computes what it computed with them; what was
    trainable before is again. Adapters of `peft` are merged by its own `merge`, and then every
    masked weight is set to zero: those were trained without the mask, so the outputs change.

    Args:
        network: Changed in place.

    Returns:
        The network itself, or the one inside a model of `peft`.

    Raises:
        ActionError: There are no adapters.
    """
    own, foreign = _merge_own(network), False
    unload: Any = getattr(network, "merge_and_unload", None)
    if unload is not None:
        network, foreign = unload(), True
    else:
        foreign = _merge_foreign(network)
    if not own and not foreign:
        raise ActionError("the network carries no adapters, so there is nothing to merge")
    apply_masks(network)
    return network


def trained_parameters(network: nn.Module) -> int:
    """Count the parameters that an optimizer moves."""
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


def _merge_own(network: nn.Module) -> bool:
    found = False
    for module in list(network.modules()):
        if not is_parametrized(module):
            continue
        for leaf, parts in list(module.parametrizations.items()):  # type: ignore[operator, union-attr]
            if any(isinstance(part, LowRank) for part in parts):
                with torch.no_grad():
                    remove_parametrizations(module, leaf, leave_parametrized=True)
                found = True
    if found:
        before = set(network.__dict__.pop(_BEFORE, ()))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in before)
    return found


def _merge_foreign(network: nn.Module) -> bool:
    """Merge layers that hold a base layer and adapters beside it, as `peft` makes them."""
    wrapped: list[tuple[str, Any]] = [
        (name, module)
        for name, module in network.named_modules()
        if hasattr(module, "get_base_layer") and callable(getattr(module, "merge", None))
    ]
    for name, module in wrapped:
        owner, _, leaf = name.rpartition(".")
        module.merge()
        setattr(network.get_submodule(owner), leaf, module.get_base_layer())
    return bool(wrapped)


def _targets(network: nn.Module, lora: LoRA) -> list[Weight]:
    """Return the weights that are to be adapted, in the network's order."""
    every = weights_in(network)
    owners = Counter(
        id(parameter)
        for module in network.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    named = dict(network.named_parameters())
    refused = {weight.name: _why_not(weight, owners[id(named[weight.name])]) for weight in every}
    if not lora.targets:
        chosen = [w for w in every if _is_factor(w) and refused[w.name] is None]
        if not chosen:
            raise ActionError(
                "LoRA finds no weight of a linear, convolutional or attention layer that it could "
                "adapt: name weights with --lora-targets"
            )
        return chosen
    chosen = [w for w in every if any(_meant(w, pattern) for pattern in lora.targets)]
    for pattern in lora.targets:
        if not any(_meant(weight, pattern) for weight in chosen):
            some = ", ".join(weight.label for weight in every[:4])
            raise ActionError(
                f"the LoRA target '{pattern}' is no weight of this network: name layers like {some}"
            )
    for weight in chosen:
        why = refused[weight.name]
        if why is not None:
            raise ActionError(f"LoRA cannot adapt {weight.label}: {why}; leave it out")
    return chosen


def _why_not(weight: Weight, owners: int) -> str | None:
    if owners > 1:
        return "several layers share this weight"
    if weight.kind == RECURRENT:
        return "recurrent layers of torch take their weights as they are stored"
    if ".parametrizations." in weight.name:
        return "the layer's weight is computed of several parts already"
    return None


def _is_factor(weight: Weight) -> bool:
    return weight.kind in (LINEAR, CONVOLUTION, ATTENTION, BILINEAR)


def _meant(weight: Weight, pattern: str) -> bool:
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
        for name in (weight.name, weight.layer)
    )
