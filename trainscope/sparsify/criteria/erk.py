"""The criterion `erk`: magnitude in each layer, at ratios that the layers' shapes decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainscope.sparsify.criteria.criterion import WEIGHT_ONLY
from trainscope.sparsify.ratios import to_prune
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class ErdosRenyiKernel:
    """`erk`: |w|, where a layer keeps a share as the sum over the product of its axes.

    Evci et al., "Rigging the Lottery" (2020), after Mocanu et al. (2018): layers whose share would
    be above 1 stay dense, and the others make up for it. The shares together are the ratio asked
    for, to one weight.
    """

    name: str = "erk"
    needs: ClassVar[frozenset[Statistic]] = WEIGHT_ONLY
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.WEIGHTS})
    comparable: ClassVar[bool] = False

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return |w|."""
        return subject.weight.abs()

    def counts(self, shapes: Sequence[Sequence[int]], ratio: float) -> list[int]:
        """Return how many weights of each layer go, ceil(ratio * total) of all together."""
        sizes = [math.prod(shape) for shape in shapes]
        asked = to_prune(sum(sizes), ratio)
        exact = [
            size * (1 - share) for size, share in zip(sizes, densities(shapes, ratio), strict=True)
        ]
        found = [min(math.floor(each), size - 1) for each, size in zip(exact, sizes, strict=True)]
        # What rounding left over goes to the largest remainders.
        order = sorted(range(len(sizes)), key=lambda k: found[k] - exact[k])
        while sum(found) < min(asked, sum(sizes) - len(sizes)):
            for place in order:
                if sum(found) < asked and found[place] < sizes[place] - 1:
                    found[place] += 1
        return found


def densities(shapes: Sequence[Sequence[int]], ratio: float) -> list[float]:
    """Return the share of its weights that each layer keeps.

    Args:
        shapes: Of the weights; the order of the axes does not matter.
        ratio: The share of all weights together that goes.
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    kept = (1 - ratio) * sum(sizes)
    while True:
        left = kept - sum(sizes[k] for k in dense)
        whole = sum(raw[k] * sizes[k] for k in range(len(sizes)) if k not in dense)
        scale = left / whole if whole else 0.0
        above = {k for k in range(len(sizes)) if k not in dense and raw[k] * scale > 1}
        if not above:
            return [1.0 if k in dense else raw[k] * scale for k in range(len(sizes))]
        # As the authors do, the layer with the largest share first.
        dense.add(max(above, key=lambda k: raw[k]))
