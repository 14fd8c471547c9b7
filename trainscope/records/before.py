"""What had been pruned in a network before trainscope was given it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainscope.records.action import LayerChange
from trainscope.records.measurement import Json
from trainscope.records.typed import record_of, typed

How = Literal["masks", "zeros", "narrower"]

NAMED = 16
"""So many layers are named with their shares; of more, the smallest and the largest share."""


@dataclass(frozen=True, slots=True)
class PrunedBefore:
    """Pruning that a network came with.

    Attributes:
        how: "masks" where the file has masks; "zeros" where weights are exactly zero without any,
            more of them than chance explains; "narrower" where layers are narrower than the
            architecture's.
        structure: The granularity: "filter", "unstructured", or N:M like "2:4".
        layers: The layers pruned: their weights (outputs, where narrower), before and after.
        total: All the network's weights, in pruned layers or not; where narrower, the outputs that
            the layers in `layers` had.
        speedup: FLOPs of the dense network / FLOPs of this one; None where it is not known.
        held: False where they were set free to grow again.
    """

    how: How
    structure: str
    layers: tuple[LayerChange, ...]
    total: int
    speedup: float | None = None
    held: bool = True

    @property
    def gone(self) -> int:
        """Count the weights (outputs) that were pruned."""
        return sum(layer.before - layer.after for layer in self.layers)

    @property
    def share(self) -> float:
        """Return the share of all weights (outputs) that was pruned."""
        return self.gone / self.total if self.total else 0.0

    @property
    def ratio(self) -> float | None:
        """Return the ratio that all pruned layers have, None where they differ."""
        before = sum(layer.before for layer in self.layers)
        if not before:
            return None
        ratio = round(self.gone / before, 3)
        # Whoever pruned rounded up, down or to the nearest.
        even = all(
            abs(layer.before - layer.after - ratio * layer.before) <= 1 + 1e-3 * layer.before
            for layer in self.layers
        )
        return ratio if even else None

    def sentence(self) -> str:
        """Say what was pruned, with the share of each layer and of all."""
        faster = "" if self.speedup is None else f"; speedup {self.speedup:.2f}"
        if self.how == "narrower":
            return (
                f"{_counted(self.layers)} narrower than the architecture's, which lost "
                f"{100 * self.share:.1f} % of their outputs ({shares(self.layers)}){faster}."
            )
        what = "exactly zero without masks" if self.how == "zeros" else "held at zero by masks"
        start = (
            f"It came pruned: {self.gone:,} of its {self.total:,} weights are {what} "
            f"({100 * self.share:.1f} %, {self.structure}{faster}; {shares(self.layers)})."
        )
        if not self.held:
            return f"{start} They are free to grow."
        if self.how == "masks":
            return start
        return (
            f"{start} Chance does not explain so many, so they are taken as pruned: left out of "
            "every measurement and held at zero in retraining, unless --regrow lets them grow."
        )

    def to_json(self) -> Json:
        """Return the fields, with the shares that follow from them."""
        return {
            "how": self.how,
            "structure": self.structure,
            "share": self.share,
            "layers": [layer.to_json() for layer in self.layers],
            "total": self.total,
            "speedup": self.speedup,
            "held": self.held,
        }

    @classmethod
    def from_json(cls, raw: Json) -> PrunedBefore:
        """Return the PrunedBefore that `to_json` wrote."""
        return record_of(cls, raw, layers=tuple(typed(LayerChange, each) for each in raw["layers"]))


def shares(layers: Sequence[LayerChange]) -> str:
    """Return the share that each layer lost, like "conv1 70.0 %, fc 50.0 %"."""
    rows = [(layer.name, 1 - layer.after / layer.before) for layer in layers]
    if len(rows) > NAMED:
        rows.sort(key=lambda row: row[1])
        (first, least), (last, most) = rows[0], rows[-1]
        return f"from {100 * least:.1f} % ({first}) to {100 * most:.1f} % ({last})"
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in rows)


def _counted(layers: Sequence[LayerChange]) -> str:
    return "1 layer is" if len(layers) == 1 else f"{len(layers)} layers are"
