"""What growing regularisation has under way: the choice of what goes, and the penalty on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainscope.networks.copies import whole_copy
from trainscope.sparsify import Sparsified, sparsify
from trainscope.training.penalty import Penalty, in_scope, leaving, separation
from trainscope.training.plans.plan import Growth
from trainscope.training.stage import PruningStage


class Growing:
    """The penalty of a pruning stage, and what it is on.

    Args:
        stage: The stage.
        growth: How its factor grows.
        picked: The network as it was when the choice was made during the stage: a state dict, empty
            where there was no such choice yet.
        module: The base model's network, to be given those weights; not touched.
    """

    def __init__(
        self, stage: PruningStage, growth: Growth, picked: Mapping[str, Any], module: nn.Module
    ) -> None:
        self.stage, self.growth, self.picked = stage, growth, picked
        self.chosen = None if growth.pick else stage.at_once
        if picked:
            there = whole_copy(module)
            there.load_state_dict(picked)
            self.chosen = self._choice(there)

    def attach(self, module: nn.Module, optimizer: Optimizer, step: int) -> None:
        """Penalise the weights of a network from a step on."""
        targets = (
            in_scope(module, self.stage.at_once)
            if self.chosen is None
            else leaving(module, self.chosen)
        )
        self.penalty = Penalty(module, self.growth, targets, step)
        self.penalty.attach(optimizer)

    def step_over(self, step: int) -> None:
        """Go on to a step; choose what goes where that is due."""
        self.penalty.step = step
        if step == self.growth.pick:
            there = whole_copy(self.penalty.network).cpu()
            self.picked = {name: value.clone() for name, value in there.state_dict().items()}
            self.chosen = self._choice(there)
            self.penalty.choose(leaving(self.penalty.network, self.chosen))

    def _choice(self, module: nn.Module) -> Sparsified:
        """Return what the action does to a network with the weights that it has now."""
        stage, job = self.stage, self.stage.job
        return sparsify(
            module, stage.action, job.network.inputs, hold_zeros=False, data=job.dataset
        )

    @property
    def choice(self) -> Sparsified:
        """What goes at the end of the stage."""
        assert self.chosen is not None
        return self.chosen

    def separation(self, module: nn.Module) -> float | None:
        """Return the magnitude of what stays over that of what goes; None where that is zero."""
        among = in_scope(module, self.stage.at_once)
        found = separation(module, leaving(module, self.choice), among)
        return found if math.isfinite(found) else None
