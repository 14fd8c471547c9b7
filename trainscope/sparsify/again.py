"""Does to another network of the same shapes what a structured action did to one."""

from __future__ import annotations

import torch
from torch import nn

from trainscope.networks.depth import drop
from trainscope.networks.example import Inputs
from trainscope.sparsify.act import Sparsified
from trainscope.sparsify.coupled import coupled
from trainscope.sparsify.heads import find_heads
from trainscope.sparsify.inner import inner


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
