"""Where a criterion's statistics come from: pinned samples of the training half."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainscope.data import Dataset, ProbeData, pin
from trainscope.errors import ActionError, TrainscopeError
from trainscope.foreign import reason
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.records.action import CRITERION_SAMPLES, CriterionData
from trainscope.sparsify.statistics.curvature import (
    hessian_diagonal,
    hessian_gradient,
    hessian_weight,
)
from trainscope.sparsify.statistics.flow import synaptic_flow
from trainscope.sparsify.statistics.gradients import mean_gradient, squared_gradient
from trainscope.sparsify.statistics.layer_inputs import input_grams, input_norms
from trainscope.sparsify.statistics.statistic import FROM_DATA, Statistic, Statistics
from trainscope.task.modes import evaluating

BATCH = 64
"""Samples that are put forward at once: fixed, so that no option changes the rounding."""

_Way = Callable[[nn.Module, ProbeData, Collection[str] | None], dict[str, Tensor]]
_WAYS: dict[Statistic, _Way] = {
    Statistic.GRADIENT: mean_gradient,
    Statistic.SQUARED_GRADIENT: squared_gradient,
    Statistic.HESSIAN_GRADIENT: hessian_gradient,
    Statistic.HESSIAN_WEIGHT: hessian_weight,
    Statistic.HESSIAN_DIAGONAL: hessian_diagonal,
    Statistic.INPUT_NORM: input_norms,
    Statistic.INPUT_GRAM: input_grams,
}


@dataclass(frozen=True)
class Source:
    """Where statistics come from.

    Attributes:
        inputs: The shape of one input, or an example of a call.
        data: The pinned samples; None where there is no data.
        half: Which half of the data they are of, "train" or "test".
        seed: Of every draw.
    """

    inputs: Inputs
    data: ProbeData | None = None
    half: str = "train"
    seed: int = 0

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        data: Dataset | ProbeData | None,
        needs: Collection[Statistic],
        *,
        samples: int = CRITERION_SAMPLES,
        seed: int = 0,
    ) -> Source:
        """Return the source of an action: samples are drawn where the criterion needs any.

        Args:
            inputs: The shape of one input, or an example of a call.
            data: A data set, of whose training half samples are pinned (of its test half where
                there is no other), or pinned samples, all of which are taken.
            needs: Of the criterion.
            samples: How many are pinned.
            seed: Of the draw.
        """
        if data is None or FROM_DATA.isdisjoint(needs):
            return cls(inputs, seed=seed)
        if isinstance(data, ProbeData):
            return cls(inputs, replace(data, batch_size=BATCH), seed=seed)
        half = "test" if data.train is None else "train"
        return cls(inputs, pin(data, samples, batch_size=BATCH, seed=seed), half, seed)

    def record(self, needs: Collection[Statistic]) -> CriterionData | None:
        """Return what is written down of it; None where nothing was collected from samples."""
        if self.data is None or FROM_DATA.isdisjoint(needs):
            return None
        names = tuple(str(each) for each in Statistic if each in needs and each in FROM_DATA)
        return CriterionData(self.data.name, self.half, len(self.data), self.seed, names)

    def collect(
        self,
        network: nn.Module,
        needs: Collection[Statistic],
        criterion: str,
        names: Collection[str] | None = None,
    ) -> Statistics:
        """Collect statistics of a network, which is left exactly as it is: a copy is run.

        Args:
            network: Its masked weights are zero.
            needs: What to collect.
            criterion: Who asks, for messages.
            names: The parameters whose layers' inputs are seen; by default all.

        Raises:
            ActionError: There is no data, the network has no such derivative, or a number is not
                finite.
        """
        wanted = [each for each in Statistic if each in needs and each is not Statistic.WEIGHT]
        generator = torch.Generator().manual_seed(self.seed)
        if not wanted:
            return Statistics(generator)
        values: dict[Statistic, dict[str, Tensor]] = {}
        for each in wanted:
            twin = _twin(network)
            cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
            try:
                with torch.random.fork_rng(devices=cuda), torch.enable_grad():
                    if each is Statistic.FLOW:
                        found = synaptic_flow(twin, self.inputs)
                    else:
                        found = _WAYS[each](twin, self._data(criterion, each, twin), names)
            except TrainscopeError:
                raise
            except Exception as error:  # whatever the network's code, or torch, raises
                raise ActionError(
                    f"the criterion {criterion} needs the {each}, which cannot be had of "
                    f"{type(network).__name__} ({reason(error)}); choose another criterion"
                ) from error
            wrong = next((n for n, v in found.items() if not torch.isfinite(v).all()), None)
            if wrong is not None:
                raise ActionError(
                    f"the {each} of {wrong} is NaN or infinite, so the criterion {criterion} "
                    "cannot rank it; choose another criterion"
                )
            values[each] = _by_every_name(twin, found)
        return Statistics(generator, values)

    def _data(self, criterion: str, need: Statistic, network: nn.Module) -> ProbeData:
        if self.data is None:
            raise no_data(criterion, need)
        if not self.data.labelled and need not in (Statistic.INPUT_NORM, Statistic.INPUT_GRAM):
            raise ActionError(
                f"the criterion {criterion} needs the {need} of the loss, and the data has no "
                "labels: give labelled data, or choose another criterion"
            )
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        return self.data.to(device)


def first_of(needs: Collection[Statistic]) -> Statistic:
    """Return the first statistic of a criterion that takes samples."""
    return next(each for each in Statistic if each in needs and each in FROM_DATA)


def no_data(criterion: str, need: Statistic) -> ActionError:
    """Return the error of a criterion that needs samples where there are none."""
    return ActionError(
        f"the criterion {criterion} needs training samples (for the {need}), and there are none: "
        "give the network's own with --data (data=), or choose a criterion without, like l1"
    )


def _twin(network: nn.Module) -> nn.Module:
    twin = evaluating(whole_copy(network))
    for parameter in twin.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    return twin


def _by_every_name(network: nn.Module, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return values by every name that a shared parameter has."""
    known: dict[int, Tensor] = {}
    named = list(network.named_parameters(remove_duplicate=False))
    for name, parameter in named:
        if name in values:
            known.setdefault(id(parameter), values[name])
    return {name: known[id(parameter)] for name, parameter in named if id(parameter) in known}
