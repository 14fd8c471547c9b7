"""The criterion `obs`: what a layer's outputs miss least goes, and the others make up for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.sparsify.criteria.criterion import LayerTarget, Repaired
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit

DAMPING = 0.01
"""Of the mean of the Gram matrix's diagonal, added to it, as SparseGPT's authors do."""


@dataclass(frozen=True)
class Surgeon:
    """`obs`: w^2 / (2 [G^-1]_jj), with G the Gram matrix of a layer's inputs; the rest is repaired.

    Hassibi and Stork, "Optimal Brain Surgeon" (1993), on each layer's quadratic error, as Dong et
    al. (2017). All that go are chosen at once by the score, and those that stay are then set to
    the least-squares optimum for that choice: w - G^-1_:P (G^-1_PP)^-1 w_P for each row, which is
    the authors' update for several weights. G has 1 % of its mean diagonal added.
    """

    name: str = "obs"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.INPUT_GRAM})
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.WEIGHTS})
    comparable: ClassVar[bool] = False

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the saliency of each weight, float64; 0 where the input is always zero."""
        inverse = torch.linalg.inv(damped(statistics, subject))
        rows = subject.parts(subject.weight).double()
        diagonal = inverse.diagonal(dim1=1, dim2=2).unsqueeze(1)
        gram = statistics.inputs(Statistic.INPUT_GRAM, subject)
        alive = (gram.diagonal(dim1=1, dim2=2) > 0).to(rows.device).unsqueeze(1)
        return subject.stored((alive * rows.square() / (2 * diagonal)).flatten(0, 1))

    def repair(self, subject: Subject, asked: LayerTarget, statistics: Statistics) -> Repaired:
        """Return the mask as it was chosen, and the least-squares optimum under it."""
        inverse = torch.linalg.inv(damped(statistics, subject))
        rows = subject.rows(subject.weight).double()
        gone = ~subject.rows(asked.mask)
        found = rows.clone()
        each = len(rows) // subject.groups
        for place in range(len(rows)):
            which = torch.nonzero(gone[place]).flatten()
            if len(which):
                own = inverse[place // each]
                step = torch.linalg.solve(own[which][:, which], rows[place, which])
                found[place] -= own[:, which] @ step
        found[gone] = 0.0
        return Repaired(asked.mask, subject.stored(found))


def damped(statistics: Statistics, subject: Subject) -> Tensor:
    """Return the Gram matrices of a layer's inputs, [groups, k, k], damped; a dead input counts 1.

    Args:
        statistics: With the Gram matrix.
        subject: A layer's single weights.
    """
    gram = statistics.inputs(Statistic.INPUT_GRAM, subject).to(subject.weight.device).clone()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal[diagonal == 0] = 1.0
    diagonal += DAMPING * diagonal.mean(dim=1, keepdim=True)
    return gram
