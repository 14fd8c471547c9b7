"""Squares of samples' gradients, their mean, and their products with it, all from the same pass.

The products need the mean, which is known after the last sample: until then what samples' gradients
are made of is held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from trainscope.probes.gradients.layer_rules import LayerRule, Masks
from trainscope.probes.rounding import NARROW


class SampleMoments:
    """Collects the gradients of samples, weight by weight, in one chunk of samples or several.

    Attributes:
        means: By the id of each weight, the mean; complete after `finish`.
        squares: Likewise the squared norms, [n] of each chunk.
        dots: The samples' products with the mean, over all weights, [N] float64.
    """

    def __init__(self, dots: Tensor, chunks: int = 1, *, alone: bool = False) -> None:
        """Begin.

        Args:
            dots: Zeros, [N].
            chunks: How many there will be.
            alone: Take the squares alone.
        """
        self.dots, self.chunks, self.alone = dots, chunks, alone
        self.means: dict[int, Tensor] = {}
        self.squares: dict[int, list[Tensor]] = defaultdict(list)
        self._formed: dict[int, list[Tensor]] = defaultdict(list)
        self._sums: dict[int, Tensor] = {}
        self._waiting: list[tuple[LayerRule, list[int], int, Tensor, Tensor]] = []

    def add(self, key: int, each: Tensor) -> None:
        """Add a chunk's gradients of one weight, [n, ...], masked."""
        if self.alone:
            self.squares[key].append(squares_of(each))
        elif self.chunks > 1:
            self._formed[key].append(each)
        else:
            self._take(key, [each])

    def leave(self, rule: LayerRule, masks: Masks, start: int, x: Tensor, d: Tensor) -> None:
        """Add a chunk's gradients of a layer's weights without forming them.

        Args:
            rule: The layer's.
            masks: Those of the weights.
            start: The place of the chunk's first sample.
            x: What the layer was given.
            d: The gradients at its output.
        """
        for key, square in rule.squares(x, d.unsqueeze(0), masks).items():
            self.squares[key].append(square)
        if self.alone:
            return
        sums = rule.summed(x, d, masks)
        for key in masks:
            self._sums[key] = self._sums[key] + sums[key] if key in self._sums else sums[key]
        self._waiting.append((rule, list(masks), start, x, d))

    @property
    def mixed(self) -> bool:
        """Whether gradients of one weight were formed in some chunks and not in others."""
        return bool(self._formed.keys() & self._sums.keys())

    def finish(self) -> None:
        """Take what had to wait for the last sample."""
        for key in list(self._formed):
            self._take(key, self._formed.pop(key))
        for key, total in self._sums.items():
            self.means[key] = total / len(self.dots)
        for rule, keys, start, x, d in self._waiting:
            response = rule.response(x, {key: self.means[key] for key in keys})
            self.dots[start : start + len(x)] += (d * response).flatten(1).sum(1)

    def _take(self, key: int, parts: Sequence[Tensor]) -> None:
        self.means[key], squares, along = moments_of(parts)
        self.squares[key].append(squares)
        self.dots += along


def moments_of(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of samples' gradients, their squares and their dots with it, [N] each.

    Args:
        parts: The gradients, [n, ...] each.
    """
    if parts[0].dtype in NARROW:  # a sum of squares would be rounded to three digits
        parts = [part.float() for part in parts]
    rows = [part.reshape(len(part), -1) for part in parts]
    # Products read them in half the time of a sum over an axis.
    sums = [row.new_ones(len(row)) @ row for row in rows]
    mean = (sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)) / sum(map(len, rows))
    squares = torch.cat([squares_of(part) for part in parts])
    return mean.view(parts[0].shape[1:]), squares, torch.cat([row @ mean for row in rows])


def squares_of(part: Tensor) -> Tensor:
    """Return squared norms, [n], from those of a weight's rows: a long sum would be rounded."""
    if part.dtype in NARROW:
        part = part.float()
    shape = (*part.shape[:2], prod(part.shape[2:])) if part.ndim > 1 else (len(part), 1, 1)
    rows = part.reshape(shape)
    found: Tensor = torch.linalg.vector_norm(rows, dim=2).square().sum(1)
    return found
