"""The weights that a pruned architecture is trained from: fresh ones, or rewound ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks import Network, build, from_factory
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.networks.masks import apply_masks, masks_of, set_masks
from trainscope.sparsify import Sparsified
from trainscope.sparsify.again import cut_again
from trainscope.task.modes import evaluating

OTHER_DRAW = 0x9E3779B9
"""Mixed into a seed, so that fresh weights are not those that pretraining started from."""


def fresh_network(architecture: str, num_classes: int | None, seed: int) -> nn.Module:
    """Return a network of a known architecture with random weights; torch's state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in architecture:
            return from_factory(architecture, num_classes)
        return build(architecture, num_classes)


def reinitialised(network: Network, seed: int) -> Network:
    """Return a network of the same shape and masks with fresh random weights.

    Where the shape is that of the dense architecture, its own initialisation is used. A narrower
    network has none of its own: every layer draws torch's defaults for its new width, convolutions
    as He et al. (2015) (normal, fan-out), as in the architectures of the pruning papers.

    Args:
        network: Not touched.
        seed: Of the draw, which is another than `fresh_network`'s with this seed.

    Raises:
        ActionError: A parameter of a narrower network belongs to no layer that can draw it anew.
    """
    seed ^= OTHER_DRAW
    dense = fresh_network(network.architecture, network.num_classes, seed)
    masks = masks_of(network.module)
    if _shapes(dense) == _shapes(network.module):
        set_masks(dense, masks)
        return replace(network, module=evaluating(dense))
    module = whole_copy(network.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _redraw(module, network.architecture)
    apply_masks(module)
    return replace(network, module=evaluating(module))


def given_initial(initial: Network | None) -> Network:
    """Return the network that a winning ticket is rewound to.

    Raises:
        ActionError: There is none.
    """
    if initial is None:
        raise ActionError(
            "a winning ticket needs the weights to rewind to: give the checkpoint of the "
            "untrained network with --rewind-to"
        )
    return initial


def rewound(initial: Network, pruned: Sparsified, inputs: Inputs) -> nn.Module:
    """Return a pruned network with the weights that its survivors had in an earlier network.

    Args:
        initial: The network before any action at an earlier epoch, as epoch 0; not touched.
        pruned: What the action did to the trained network.
        inputs: The shape of one input, or an example of a call.

    Raises:
        ActionError: The networks are not of one shape.
    """
    module = whole_copy(initial.module)
    if pruned.record.structure == "filter":
        cut_again(module, pruned, inputs)
    if _shapes(module) != _shapes(pruned.module):
        raise ActionError(
            "the earlier weights are of another shape than the network that was pruned: "
            "give the checkpoint that the same pretraining started from"
        )
    set_masks(module, masks_of(pruned.module))
    return module


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


@torch.no_grad()
def _redraw(module: nn.Module, architecture: str) -> None:
    for name, part in module.named_modules():
        reset = getattr(part, "reset_parameters", None)
        own = [leaf for leaf, _ in part.named_parameters(recurse=False)]
        if reset is not None:
            reset()
        elif own:
            where = f"{name}.{own[0]}" if name else own[0]
            raise ActionError(
                f"{where} of the pruned {architecture} belongs to no layer that can draw it anew, "
                "so there is no training from scratch"
            )
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
