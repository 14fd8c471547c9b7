"""Oracle pruning: the filters whose removal leaves the lowest train loss, found by trying.

Source: Feng, Tao, Wang, "Is Oracle Pruning the True Oracle?" (2024). Exact where all combinations
of a layer's filters are tried, approximate where some are drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainscope.data import Split
from trainscope.errors import ActionError
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.sparsify.inner import with_first
from trainscope.studies.combinations import (
    Kept,
    all_of,
    check_counts,
    count_of,
    some_of,
)
from trainscope.studies.masked_trials import Masks, Read, Scored, masked, score_trials
from trainscope.task import Task
from trainscope.task.modes import evaluating

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class PruningTrial:
    """One combination of filters.

    Attributes:
        place: Its number among all combinations of the search, from 0.
        kept: The filters that stay, sorted, by layer.
        loss: The train loss of the pruned network, before any retraining; None where it is not
            finite.
        metric: The task's metric on the same samples; None where it is no number.
    """

    place: int
    kept: Mapping[str, tuple[int, ...]]
    loss: float | None
    metric: float | None

    @property
    def name(self) -> str:
        """Return the filters that stay, like "conv1:0,2,5"."""
        return " ".join(f"{layer}:{','.join(map(str, kept))}" for layer, kept in self.kept.items())


@dataclass(frozen=True)
class OracleSearch:
    """What was tried.

    Attributes:
        layers: How many filters each layer had.
        keep: How many of each stay.
        combinations: How many there are in all.
        exact: Whether all were tried.
        samples: Training samples behind every loss.
        trials: In the order of the combinations.
    """

    layers: Mapping[str, int]
    keep: Mapping[str, int]
    combinations: int
    exact: bool
    samples: int
    trials: tuple[PruningTrial, ...]

    @property
    def best(self) -> PruningTrial:
        """Return the trial of the lowest loss: what oracle pruning prunes."""
        return self.ranked[0]

    @property
    def ranked(self) -> list[PruningTrial]:
        """Return the trials, the lowest loss first, those without one last."""
        return sorted(
            self.trials, key=lambda each: (math.inf if each.loss is None else each.loss, each.place)
        )


class FilterChoice:
    """Layers of a network whose filters are chosen: how trials mask them, and how they are cut.

    Args:
        network: Not changed.
        inputs: The shape of one input, or an example of a call.
        keep: How many filters stay, by layer; a layer of convolutions, the first one too, or the
            hidden units of an MLP in a network without any.

    Raises:
        ActionError: A layer is not there or cannot be cut, or so many filters cannot stay.
    """

    def __init__(self, network: nn.Module, inputs: Inputs, keep: Mapping[str, int]):
        self._network = network
        self._cutter = cutter = with_first(network, inputs)
        self.layers = tuple(map(cutter.candidate, keep))
        if len({layer.name for layer in self.layers}) < len(self.layers):
            raise ActionError(f"{', '.join(keep)} go together: name one of them")
        self.keep = tuple(keep.values())
        check_counts(self.layers, self.keep)
        self._reads: list[dict[str, Read]] = []
        for layer in self.layers:
            found = cutter.reads(layer.name)
            if not found:
                raise ActionError(f"no layer reads the filters of {layer.name}; choose another")
            self._reads.append(
                {
                    name: Read(layout.axis, cutter.width(layout), places)
                    for name, (layout, places) in found.items()
                }
            )
        self._check(network, inputs)

    def masks(self, kept: Kept) -> Masks:
        """Return what makes other layers read zeros in the place of the filters that go."""
        found: dict[str, tuple[int, torch.Tensor]] = {}
        for layer, reads, stays in zip(self.layers, self._reads, kept, strict=True):
            gone = sorted(set(range(layer.count)) - set(stays))
            for name, read in reads.items():
                other = found.get(name)
                mask = read.gone(gone)
                found[name] = (read.axis, mask if other is None else mask | other[1])
        return found

    def cut(self, kept: Kept) -> nn.Module:
        """Return a copy of the network without the filters that go."""
        copied = whole_copy(self._network)
        return self._cut(copied, kept)

    def _cut(self, network: nn.Module, kept: Kept) -> nn.Module:
        gone = {
            layer.name: torch.tensor(sorted(set(range(layer.count)) - set(stays)))
            for layer, stays in zip(self.layers, kept, strict=True)
        }
        self._cutter.on(network).cut(gone)
        for parameter in network.parameters():
            parameter.grad = None
        return network

    @torch.no_grad()
    def _check(self, network: nn.Module, inputs: Inputs) -> None:
        """Try one combination: the masked network is the cut one, in float64.

        Raises:
            ActionError: It is not.
        """
        from trainscope.sparsify.verify import run

        kept = some_of(self.layers, self.keep, 1, 0)[0]
        whole = evaluating(whole_copy(network).double())
        cut = self._cut(whole_copy(whole), kept)
        with masked(whole, self.masks(kept)):
            expected = run(whole, inputs)
        got = run(cut, inputs)
        for place, right in expected.items():
            bound = _TOLERANCE * float(right.abs().max()) if right.numel() else 0.0
            if not torch.allclose(got[place], right, rtol=0.0, atol=bound, equal_nan=True):
                names = ", ".join(layer.name for layer in self.layers)
                raise ActionError(
                    f"the network without filters of {names} is not the network that reads zeros "
                    "in their place, so its loss cannot be had without cutting; choose another "
                    "layer"
                )


def search(
    choice: FilterChoice,
    network: nn.Module,
    split: Split,
    task: Task,
    *,
    count: int | None = None,
    seed: int = 0,
    batch_size: int = 1000,
    tell: Callable[[str], None] = lambda _: None,
) -> OracleSearch:
    """Try combinations of filters and return the train loss of each.

    Args:
        choice: The layers, and how many filters stay.
        network: What `choice` was made of.
        split: The training samples that the loss is of.
        task: What the network is asked to do.
        count: Combinations to draw at random; None for all of them.
        seed: Of the draw.
        batch_size: Samples put forward at once.
        tell: Takes a line about progress.

    Raises:
        ActionError: There are too many combinations to try all.
    """
    layers, keep = choice.layers, choice.keep
    total = count_of(layers, keep)
    kept = list(all_of(layers, keep)) if count is None else some_of(layers, keep, count, seed)
    tell(f"{len(kept)} of {total} combinations, {len(split)} training samples each")
    masks = [choice.masks(each) for each in kept]
    scored = score_trials(network, masks, split, task, batch_size=batch_size)
    names = [layer.name for layer in layers]
    return OracleSearch(
        {layer.name: layer.count for layer in layers},
        dict(zip(names, keep, strict=True)),
        total,
        len(kept) == total,
        len(split),
        tuple(
            _trial(place, dict(zip(names, each, strict=True)), found)
            for place, (each, found) in enumerate(zip(kept, scored, strict=True))
        ),
    )


def _trial(place: int, kept: Mapping[str, tuple[int, ...]], found: Scored) -> PruningTrial:
    return PruningTrial(place, kept, found.loss, found.metric)
