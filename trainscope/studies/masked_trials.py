"""The loss of many pruned networks without cutting any: what reads the filters sees zeros instead.

A network whose filters were cut out is the network whose other layers read zeros in their place,
whatever stands between (a batch norm, an activation that is not 0 at 0). So a trial is one forward
pass, with the inputs of the layers that read the filters times a mask; no copy is made. Where a
trace by `torch.fx` runs as the network does, a trial runs what depends on those inputs alone, and
all before is run once a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from trainscope.data import Split
from trainscope.sparsify.walk import LeafTracer
from trainscope.task import Batch, Classification, FromLoss, Outputs, Task, metric_value
from trainscope.task.batches import beside, mapped
from trainscope.task.calls import ModuleCall, hooked
from trainscope.task.modes import eval_mode
from trainscope.task.task import answers
from trainscope.training.evaluation import Scoring, added, scoring

BATCH = 1000
"""Samples put forward at once."""
_ALIKE = 1e-5


@dataclass(frozen=True)
class Read:
    """Where a layer reads filters.

    Attributes:
        axis: Of its input, on which its channels lie.
        width: How many channels it reads.
        places: Which of them each filter is, [filters, repeats].
    """

    axis: int
    width: int
    places: Tensor

    def gone(self, filters: Sequence[int]) -> Tensor:
        """Return [width], True where one of some filters would stand."""
        found = torch.zeros(self.width, dtype=torch.bool)
        found[self.places[list(filters)].flatten()] = True
        return found


Masks = Mapping[str, tuple[int, Tensor]]
"""By the layer that reads: the axis of its channels, and [channels], True for those that went."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A pruned network on some samples.

    Attributes:
        loss: The mean of the loss terms; None where it is not finite.
        metric: The task's metric; None where it is no number.
    """

    loss: float | None
    metric: float | None


@torch.no_grad()
def score_trials(
    network: nn.Module,
    trials: Sequence[Masks],
    split: Split,
    task: Task,
    *,
    batch_size: int = BATCH,
    suffix: bool = True,
) -> list[Scored]:
    """Return the loss and the metric of a network under each of several masks, in eval mode.

    Args:
        network: Not changed; run where it is and in its own dtype. Losses are added in float64.
        trials: The masks of each trial.
        split: What it is run on.
        task: What it is asked to do.
        batch_size: Samples put forward at once.
        suffix: Run only what depends on a mask, where that gives what the whole network gives.
    """
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    totals, terms = [0.0] * len(trials), [0] * len(trials)
    parts: list[list[Any]] = [[] for _ in trials]
    score: Scoring = task.score
    with eval_mode(network):
        passes = _passes(network, trials, split, task) if suffix else None
        for indices in torch.split(torch.arange(len(split)), batch_size):
            batch = beside(split.batch(indices), weight)
            for k, outputs in enumerate(_outputs(network, trials, batch, task, passes)):
                outputs = mapped(_exact, outputs)
                lost = task.losses(outputs, batch)
                totals[k] += float(lost.double().sum())
                terms[k] += lost.numel()
                if not parts[0] and isinstance(task, FromLoss):
                    score = scoring(task, outputs, batch, len(split) * len(trials))
                with masked(network, trials[k]):
                    parts[k].append(score(answers(task, network, batch, outputs), batch))
    return [
        Scored(_mean(total, count), metric_value(task, *added(part)))
        for total, count, part in zip(totals, terms, parts, strict=True)
    ]


@contextmanager
def masked(network: nn.Module, masks: Masks) -> Iterator[None]:
    """Have layers read zeros where masks say so, by hooks that go again."""

    def zero(call: ModuleCall[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        axis, gone = masks[call.key]
        return (_without(call.args[0], axis, gone), *call.args[1:]), call.kwargs

    with hooked(((name, network.get_submodule(name)) for name in masks), before=zero):
        yield


def _without(value: Tensor, axis: int, gone: Tensor) -> Tensor:
    shape = [1] * value.ndim
    shape[axis] = -1
    return value.masked_fill(gone.to(value.device).view(shape), 0.0)


class _Suffix(fx.Interpreter):
    """Runs a trace whole once, then what depends on masked layers again and again."""

    def __init__(self, traced: fx.GraphModule, layers: Iterable[str]):
        super().__init__(traced, garbage_collect_values=False)
        self.masks: Masks = {}
        wanted = set(layers)
        reached: set[fx.Node] = set()
        self.again: list[fx.Node] = []
        for node in traced.graph.nodes:
            masks = node.op == "call_module" and node.target in wanted
            if masks or not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
                self.again.append(node)
        self.called = {str(node.target) for node in self.again if node.op == "call_module"}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in self.masks:
            args = (_without(args[0], *self.masks[target]), *args[1:])
        return super().call_module(target, args, kwargs)

    def whole(self, inputs: Tensor) -> Any:
        self.masks = {}
        return self.run(inputs)

    def trial(self, masks: Masks) -> Any:
        self.masks = masks
        kept = dict(self.env)
        value = None
        try:
            for node in self.again:
                value = self.env[node] = self.run_node(node)
        finally:
            self.env = kept
        return value


def _passes(
    network: nn.Module, trials: Sequence[Masks], split: Split, task: Task
) -> _Suffix | None:
    """Return a pass from the masked layers on; None where it is not what the network does."""
    if type(task) is not Classification or not trials:
        return None
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    batch = beside(split.batch(torch.arange(min(4, len(split)))), weight)
    if not (isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], Tensor)):
        return None
    names = {name for masks in trials for name in masks}
    try:
        graph = LeafTracer().trace(network)
        found = _Suffix(fx.GraphModule(network, graph), names)
        if not names <= found.called:
            return None
        found.whole(batch[0].clone())
        for _ in range(2):  # a pass that writes into what is kept is not the same twice
            for masks in (trials[0], trials[-1]):
                with masked(network, masks):
                    right = task.outputs(network, batch)
                if not _same(found.trial(masks), right):
                    return None
    except Exception:  # whatever torch raises where it cannot trace a network
        return None
    return found


def _outputs(
    network: nn.Module, trials: Sequence[Masks], batch: Batch, task: Task, passes: _Suffix | None
) -> Iterator[Outputs]:
    if passes is not None:
        passes.whole(batch[0].clone())
    for masks in trials:
        if passes is not None:
            yield passes.trial(masks)
            continue
        with masked(network, masks):
            outputs = task.outputs(network, batch)
        yield outputs


def _same(got: Any, right: Any) -> bool:
    if not (isinstance(got, Tensor) and isinstance(right, Tensor) and got.shape == right.shape):
        return False
    bound = _ALIKE * float(right.abs().max()) if right.numel() else 0.0
    return torch.allclose(got, right, rtol=0.0, atol=bound, equal_nan=True)


def _exact(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def _mean(total: float, count: int) -> float | None:
    mean = total / count if count else math.nan
    return mean if math.isfinite(mean) else None
