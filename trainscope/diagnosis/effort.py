"""How much of a probe is measured: from a first look to all that was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.probes import LighterProbe, Probe
from trainscope.probes.probe import Need
from trainscope.probes.subject.evaluation import taken_batch
from trainscope.probes.subject.untouched import untouched
from trainscope.records import Cost

FIRST = 2
"""Pinned samples of a first look."""
MANY = 8
"""Pinned samples from which on more of a probe is worth more than more samples."""
TIMED = 4
"""Pinned samples of the passes that are timed before all others."""
LONG = 1.0
"""Seconds of a first pass in which what warms up is no longer much: there is no second one."""


@dataclass(frozen=True)
class Effort:
    """One way to measure a probe.

    Attributes:
        probe: With the options to measure with.
        data: The pinned samples to measure on.
        work: Sample passes of one column, a backward pass counted as two.
        said: What is less than what was asked for, in words; "" where nothing is.
    """

    probe: Probe
    data: ProbeData
    work: float
    said: str = ""


def passes(cost: Cost) -> float:
    """Return a cost in sample passes: a backward pass is two forward ones."""
    return cost.forward + 2.0 * cost.backward


def pass_seconds(network: nn.Module, data: ProbeData) -> float | None:
    """Return what a plain pass of one sample takes, in seconds; None where it cannot be tried.

    A first look at a probe holds checks beside its passes, and would make others look dear.

    Args:
        network: Left untouched.
        data: The pinned samples, of which a few are put forward and backward, twice where that is
            quick.
    """
    data, found, turns = data.first(min(TIMED, len(data))), 0.0, 0
    try:
        with untouched(network), torch.enable_grad():
            weights = [each for each in network.parameters() if each.requires_grad]
            batch = taken_batch(network, data)
            while turns < 2 and found < LONG:  # the first one warms up
                turns += 1
                begun = time.perf_counter()
                outputs = data.task.outputs(network, batch)
                terms = data.task.losses(outputs, batch)
                torch.autograd.grad(terms.sum(), weights, allow_unused=True)
                found = time.perf_counter() - begun
    except Exception:  # said by the probes, which do the same
        return None
    return found / (len(data) * passes(Cost(forward=1, backward=1)))


def fewer(
    probe: Probe, network: nn.Module, data: ProbeData, *, samples: bool = True
) -> list[Effort]:
    """Return the ways to measure less of a probe than was asked for, the least first.

    A `LighterProbe` says itself what is less; any other is measured with its own options on fewer
    of the pinned samples.

    Args:
        probe: With the options that were asked for.
        network: Of which the costs are.
        data: All pinned samples.
        samples: Whether fewer of them will do.
    """
    lesser = list(probe.lighter(network, data)) if isinstance(probe, LighterProbe) else []
    if Need.TRAINING in probe.needs:  # what the pinned samples do not change
        return [_effort(each, network, data, said) for each, said in lesser]
    parts = [data.first(size) for size in _sizes(len(data))] if samples else []
    few = parts
    if lesser:  # rather a first look at more samples than all that two of them say
        few = [part for part in parts if len(part) <= MANY]
        few += [data] if len(data) <= MANY or not samples else []
        parts = [part for part in parts if len(part) >= MANY]
    tried = [(each, part, said) for each, said in lesser for part in few]
    tried += [(probe, part, "") for part in parts]
    return [_effort(each, network, part, _joined(said, part, data)) for each, part, said in tried]


def _effort(probe: Probe, network: nn.Module, data: ProbeData, said: str) -> Effort:
    return Effort(probe, data, passes(probe.estimate(network, data)), said)


def _sizes(count: int) -> Iterator[int]:
    size = FIRST
    while size < count:
        yield size
        size *= 2


def _joined(said: str, part: ProbeData, data: ProbeData) -> str:
    fewer = "" if len(part) == len(data) else f"on {len(part)} of {len(data)} pinned samples"
    return ", ".join(each for each in (fewer, said) if each)
