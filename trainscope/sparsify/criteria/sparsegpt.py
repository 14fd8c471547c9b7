"""The criterion `sparsegpt`: layers are pruned column by column, and what follows is repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainscope.errors import ActionError
from trainscope.sparsify.choose import lowest
from trainscope.sparsify.criteria.criterion import LayerTarget, Repaired
from trainscope.sparsify.criteria.surgeon import damped
from trainscope.sparsify.n_m import keep_n_of_m
from trainscope.sparsify.ratios import to_prune
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit


@dataclass(frozen=True)
class SparseGPT:
    """`sparsegpt`: w^2 / [U]_jj^2, with U'U = G^-1, in blocks of columns, each repaired in turn.

    Frantar and Alistarh, "SparseGPT" (2023), algorithm 1: from left to right, the weights of a
    column that go hand their error on to the columns that follow, by the inverse of the Gram matrix
    of those. What goes is chosen a block of columns ahead, from weights as they are then; for N:M
    from M columns at a time. Inputs that are always zero lose their weights first. The inputs are
    those of the network before any layer is pruned.

    Attributes:
        block: Columns that are chosen from at once; the authors' number is 128.
    """

    block: int = 128
    name: ClassVar[str] = "sparsegpt"
    needs: ClassVar[frozenset[Statistic]] = frozenset({Statistic.WEIGHT, Statistic.INPUT_GRAM})
    units: ClassVar[frozenset[Unit]] = frozenset({Unit.WEIGHTS})
    comparable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the block."""
        if self.block < 1:
            raise ActionError(f"sparsegpt: block is {self.block}; give at least 1")

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the scores of the weights as they are before any repair, float64."""
        factors = _factors(damped(statistics, subject))
        rows = subject.parts(subject.weight).double()
        diagonal = factors.diagonal(dim1=1, dim2=2).unsqueeze(1)
        return subject.stored((rows / diagonal).square().flatten(0, 1))

    def repair(self, subject: Subject, asked: LayerTarget, statistics: Statistics) -> Repaired:
        """Return what stays, chosen block by block, and its values."""
        gram, raw = damped(statistics, subject), statistics.inputs(Statistic.INPUT_GRAM, subject)
        dead = (raw.diagonal(dim1=1, dim2=2) == 0).to(gram.device)
        order = torch.arange(gram.shape[-1])
        if asked.n_m is not None:  # so that the M of a group follow each other
            order = subject.consecutive()
            gram, dead = gram[:, order][:, :, order], dead[:, order]
        back = order.argsort()
        rows = subject.rows(subject.weight).double()[:, order]
        there = torch.ones_like(rows, dtype=torch.bool)
        if subject.mask is not None:
            there = subject.rows(subject.mask)[:, order]
        weights, masks = [], []
        for own, held, grown, gone in zip(
            rows.chunk(subject.groups), there.chunk(subject.groups), gram, dead, strict=True
        ):
            own = own.masked_fill(gone, 0.0)
            weight, mask = self._solved(own, held, _factors(grown[None])[0], asked)
            weights.append(weight[:, back])
            masks.append(mask[:, back])
        mask = subject.stored(torch.cat(masks))
        return Repaired(mask, subject.stored(torch.cat(weights)))

    def _solved(
        self, rows: Tensor, there: Tensor, factor: Tensor, asked: LayerTarget
    ) -> tuple[Tensor, Tensor]:
        """Return the repaired rows [rows, k] and what stays of them."""
        rows, (count, width) = rows.clone(), rows.shape
        mask = torch.ones_like(there)
        step = self.block if asked.n_m is None else asked.n_m[1]
        done = 0
        for start in range(0, width, step):
            stop = min(start + step, width)
            scores = (rows[:, start:stop] / factor.diagonal()[start:stop]).square()
            scores = scores.masked_fill(~there[:, start:stop], -torch.inf)
            if asked.n_m is None:
                whole, part = count * width, int(asked.ratio * count * stop)
                until = to_prune(whole, asked.ratio) if stop == width else part
                gone = lowest(scores.flatten(), until - done).view_as(scores)
                mask[:, start:stop], done = ~gone, until
            else:
                mask[:, start:stop] = keep_n_of_m(scores, *asked.n_m)
            for column in range(start, stop):
                error = rows[:, column] / factor[column, column]
                error = error.masked_fill(mask[:, column], 0.0)
                rows[:, column:] -= error.unsqueeze(1) * factor[column, column:]
                rows[:, column][~mask[:, column]] = 0.0
        mask &= there
        return rows.masked_fill(~mask, 0.0), mask


def _factors(gram: Tensor) -> Tensor:
    """Return the upper Cholesky factors of the inverses of Gram matrices.

    Row j of one, over its first entry, is the first row of the inverse of the Gram matrix of the
    columns from j on: what each of them takes over where column j goes.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    found: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return found
