"""The learning rates of a run or of a plan, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import Floats

CHANGES = 60
"""LRs of a run that are told apart, at most."""


@dataclass(frozen=True)
class Track:
    """The LRs of a run, or of a plan: `rates[i]` holds up to `edges[i]`.

    Attributes:
        edges: [S], increasing, in epochs.
        rates: [S], 0 or more.
    """

    edges: Floats
    rates: Floats

    @classmethod
    def of(cls, curve: LearningCurve) -> Track:
        """Return the LRs of a curve with at least one."""
        return cls(curve.lr_epochs, curve.lr).joined()

    def joined(self) -> Track:
        """Return the same LRs with equal neighbours as one, and means of neighbours if many."""
        last = np.append(np.diff(self.rates) != 0, True)
        edges, rates = self.edges[last], self.rates[last]
        if len(edges) > CHANGES:
            at = np.unique(np.linspace(0, len(edges), CHANGES + 1).round().astype(int))[1:] - 1
            area = np.cumsum(rates * np.diff(edges, prepend=0.0))
            edges = edges[at]
            rates = np.diff(area[at], prepend=0.0) / np.diff(edges, prepend=0.0)
        return Track(edges, rates)

    def until(self, epoch: float) -> Track:
        """Return the LRs up to an epoch, which lies after the start."""
        keep = self.edges < epoch
        place = min(int(keep.sum()), len(self.rates) - 1)
        return Track(
            np.append(self.edges[keep], epoch), np.append(self.rates[keep], self.rates[place])
        )

    def then(self, other: Track) -> Track:
        """Return these LRs and, from where they end, those of another track from epoch 0."""
        later = other.edges > self.edges[-1]
        return Track(
            np.concatenate((self.edges, other.edges[later])),
            np.concatenate((self.rates, other.rates[later])),
        )

    def split(self, at: Floats) -> Track:
        """Return the same LRs with an edge at each of some epochs; the last LR goes on."""
        edges = np.union1d(self.edges, at[at > 0])
        place = np.minimum(np.searchsorted(self.edges, edges), len(self.edges) - 1)
        return Track(edges, self.rates[place])

    def rate(self, at: Floats) -> Floats:
        """Return the LR that holds up to each of some epochs, [M]; the last LR goes on."""
        return self.rates[np.minimum(np.searchsorted(self.edges, at), len(self.edges) - 1)]

    def lr_time(self, at: Floats) -> Floats:
        """Return the sum of LR over the epochs up to each of some, [M]; the last LR goes on."""
        whole = self.split(at)
        spent = np.cumsum(whole.rates * np.diff(whole.edges, prepend=0.0))
        return np.asarray(spent[np.searchsorted(whole.edges, at)])

    @property
    def peak(self) -> float:
        """Return the largest LR."""
        return float(self.rates.max())
