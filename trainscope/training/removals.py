"""What the events of a pruning stage took away in all, named by places in the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from trainscope.networks import flops, parameters
from trainscope.networks.example import Inputs
from trainscope.records import Json
from trainscope.records.action import LayerChange
from trainscope.sparsify import Sparsified


@dataclass
class Removals:
    """What went so far.

    Attributes:
        outputs: The places of the outputs that went, by layer, as the base model has them; empty
            where weights are masked.
        layers: Counts of each layer before the first event and after the last one.
        reached: The share that is gone of all that the ratio is asked of.
        events: What happened when, for a reader.
    """

    outputs: dict[str, list[int]] = field(default_factory=dict)
    layers: dict[str, list[int]] = field(default_factory=dict)
    reached: float = 0.0
    events: list[Json] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many outputs of each layer are gone."""
        return {name: len(places) for name, places in self.outputs.items()}

    def add(self, done: Sparsified) -> None:
        """Add what an event did, to a network that earlier ones had cut already."""
        for name, places in done.removed.items():
            gone = self.outputs.get(name, [])
            self.outputs[name] = sorted([*gone, *(_place_before(k, gone) for k in places)])
        for layer in done.record.layers:
            before = self.layers.get(layer.name, [layer.before])[0]
            self.layers[layer.name] = [before, layer.after]
        if done.record.reached is not None:
            self.reached = done.record.reached

    def as_done(self, at_once: Sparsified, module: nn.Module, inputs: Inputs) -> Sparsified:
        """Return it as what one action did to the base model.

        Args:
            at_once: What the action would have done at once.
            module: The network that is left.
            inputs: The shape of one input, or an example of a call.
        """
        left, base = flops(module, inputs), at_once.record
        record = replace(
            base,
            parameters=parameters(module),
            flops=left,
            speedup=base.speedup * base.flops / left if left else 1.0,
            layers=tuple(LayerChange(name, *counts) for name, counts in self.layers.items()),
            reached=self.reached,
        )
        removed = {name: tuple(places) for name, places in self.outputs.items()}
        return Sparsified(module, record, at_once.notes, removed)

    def to_json(self) -> Json:
        """Return the fields."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Removals:
        """Return what `to_json` wrote."""
        return cls(**raw)


def _place_before(place: int, gone: list[int]) -> int:
    """Return the place that an output had before earlier ones went, whose places are sorted."""
    for each in gone:
        if each > place:
            break
        place += 1
    return place
