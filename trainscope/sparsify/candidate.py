"""What can be cut in a network, found by a scope before anything is ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from trainscope.networks.weights import ADAPTER, EMBEDDING, EXPERTS, OTHER, Weight, weights_in
from trainscope.sparsify.statistics import Subject

FIRST = "the first convolution is spared"
OUTPUT = "its outputs are the network's"
RESIDUAL = "its outputs meet a residual addition"
OTHER_KIND = "only convolutions are pruned"
HEAD = "its units are read by the network's last layer alone"
EXPECTED = (FIRST, RESIDUAL, OUTPUT, OTHER_KIND)
"""Why layers are spared in every network: nobody need be told each time."""


@dataclass(frozen=True)
class Candidate:
    """Filters that can be cut, and are ranked against each other.

    Attributes:
        subject: What a criterion sees of them; its name is the candidate's.
        layers: The layers whose filters go together, in forward order.
        count: How many filters there are.
        chunks: Parts that must lose equally many (the groups of a grouped convolution), else 1.
        aligned: True where each part must lose the filters at the same places in it.
    """

    subject: Subject
    layers: tuple[str, ...]
    count: int
    chunks: int = 1
    aligned: bool = False

    @property
    def name(self) -> str:
        """The first layer's name."""
        return self.subject.name


Removed = Mapping[str, Tensor]
"""Indices [k] of the filters that go, sorted, by candidate."""


class Cutter(Protocol):
    """A scope's view of one network: what can be cut, what not and why, and how."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What can be cut, in forward order."""

    @property
    def spared(self) -> Mapping[str, str]:
        """Why other layers are not, by name."""

    @property
    def noun(self) -> str:
        """What one candidate is, for a person: "inner convolution", "coupled group"."""

    @property
    def unit(self) -> str:
        """What is removed: "filters", "hidden units", "channels"."""

    @property
    def untold(self) -> Mapping[str, str]:
        """Which of them are spared for a reason that one might not expect."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know beside, each one sentence."""

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""


@dataclass
class Selection:
    """Filters chosen to go.

    Attributes:
        removed: Their indices, by candidate.
        notes: Where the ratio asked for could not be had, and why.
    """

    removed: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, mask: Tensor) -> None:
        """Add a candidate's filters: a boolean mask [n], True where one goes."""
        if mask.any():
            self.removed[name] = torch.nonzero(mask).flatten()


def left_alone(reasons: Mapping[str, str], shares: Mapping[str, float]) -> tuple[str, ...]:
    """Return one sentence for each reason, with the layers that it holds for.

    Args:
        reasons: By layer.
        shares: Each layer's weights, as a share of the network's parameters.
    """

    def share(name: str) -> float:
        inside = f"{name}."
        known = shares.get(name)
        return sum(s for n, s in shares.items() if n.startswith(inside)) if known is None else known

    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return tuple(
        f"left alone: {some(layers)} ({why}), "
        f"{100 * sum(map(share, layers)):.3g} % of the parameters"
        for why, layers in names.items()
    )


def shares_of(network: nn.Module) -> dict[str, float]:
    """Return each weight's share of a network's parameters, by its label."""
    total = sum(parameter.numel() for parameter in network.parameters())
    return {weight.label: weight.tensor.numel() / total for weight in weights_in(network)}


ADAPTED = (
    "an adapter beside a layer, whose product is added to that layer's weight, zeros and all: call "
    "peft's merge_and_unload() first"
)
"""Why an adapter is not pruned."""


def why_untouched(weight: Weight) -> str:
    """Return why a weight is in no scope, whatever is asked."""
    if weight.kind == EMBEDDING:
        return "an embedding is looked up, not multiplied"
    if ".parametrizations." in f".{weight.name}":
        return "its weight is parametrised"
    if weight.kind == ADAPTER:
        return ADAPTED
    if weight.kind == EXPERTS:
        return "the units of a mixture of experts are not cut"
    if weight.kind == OTHER:
        return f"a parameter of {type(weight.module).__name__}, whose use is not known"
    return f"{'an' if weight.kind[0] in 'aeio' else 'a'} {weight.kind} has no filters"


def some(names: Sequence[str]) -> str:
    """Return names as a person can take them in: three and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
