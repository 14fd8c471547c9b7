"""Does to another network of the same shapes what an action did to one, without its data."""

from __future__ import annotations

import torch
from torch import nn

from trainscope.networks.depth import drop
from trainscope.networks.example import Inputs
from trainscope.networks.masks import masks_of, set_masks
from trainscope.sparsify.act import Sparsified
from trainscope.sparsify.coupled import coupled
from trainscope.sparsify.heads import find_heads
from trainscope.sparsify.inner import inner
from trainscope.task.modes import kept_modes


def do_again(module: nn.Module, done: Sparsified, inputs: Inputs) -> None:
    """Take out what an action took out of another network, and mask what it masked.

    What went is known by name and place, so neither the criterion nor its data is needed. The
    weights that stay are the module's own, also where the criterion repaired those of the other.

    Args:
        module: Changed in place; of the shapes of the network that was pruned.
        done: What the action did.
        inputs: The shape of one input, or an example of a call.

    Raises:
        ActionError: The network cannot be followed.
        ValueError: It is of other shapes.
    """
    if done.record.structure == "filter":
        trained = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
        with kept_modes(module):
            cut_again(module, done, inputs)
        for parameter, required in trained:
            parameter.requires_grad_(required)
    set_masks(module, masks_of(done.module))


def cut_again(module: nn.Module, done: Sparsified, inputs: Inputs) -> None:
    """Cut the blocks, heads and filters out of a network that an action cut out of another.

    Args:
        module: Changed in place.
        done: What the action did, with the structure "filter".
        inputs: The shape of one input, or an example of a call.

    Raises:
        ActionError: The network cannot be followed.
    """
    drop(module, done.blocks)
    if done.heads:
        cutter = find_heads(module, inputs)
        cutter.cut({name: torch.tensor(units) for name, units in done.heads.items()})
    if not done.removed:
        return
    scope = (inner if done.record.scope == "inner" else coupled)(module, inputs)
    scope.cut(
        {
            candidate.name: torch.tensor(done.removed[candidate.name])
            for candidate in scope.candidates
            if candidate.name in done.removed
        }
    )
