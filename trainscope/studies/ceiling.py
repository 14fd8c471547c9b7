"""How well the end of retraining can be predicted at all: retraining again does not end the same.

Candidates that were retrained with several seeds tell it. *Another retraining* of the same
candidate is a predictor that knows everything but the noise, and has noise itself. What a number
without noise could reach follows from it for values that are normal: a correlation r between two
retrainings is the reliability of one, and a perfect predictor of one has the correlation sqrt(r).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainscope.studies.association import Floats, Ints, Name, association

FEWEST_REPEATED = 3
"""Candidates with two retrainings or more, from which on a ceiling is told."""
_MOST_PAIRS = 20


def repeated(name: Name, values: Sequence[Floats], weights: Floats, strata: Ints) -> Floats:
    """Return the association of one retraining's end with another's of the same candidate.

    Args:
        name: Which coefficient.
        values: What the retrainings of each candidate ended at, two or more of each.
        weights: [B, N], how often each candidate is in each sample.
        strata: [N].

    Returns:
        [B], the mean over the ways to pair retrainings by their order.
    """
    most = max(map(len, values))
    ways = [(j, s) for s in range(1, most) for j in range(most)][:_MOST_PAIRS]
    found = []
    for first, step in ways:
        one = np.array([v[first % len(v)] for v in values])
        other = np.array([v[_other(first, step, len(v))] for v in values])
        found.append(association(name, one, other, weights, strata))
    held = np.stack(found)
    known = np.isfinite(held)
    total = np.where(known, held, 0.0).sum(axis=0)
    out = np.full(len(weights), np.nan)
    mean: Floats = np.divide(total, known.sum(axis=0), out=out, where=known.any(axis=0))
    return mean


def _other(first: int, step: int, count: int) -> int:
    """Return the place of a retraining that is not the one at `first`, modulo their number."""
    return (first + 1 + (step - 1) % (count - 1)) % count


def attainable(name: Name, between: float, retrainings: float = 1.0) -> float:
    """Return the association that a number without noise could have, values being normal.

    Args:
        name: Which coefficient.
        between: That of one retraining with another.
        retrainings: How many retrainings the value to predict is the mean of.
    """
    r = max(0.0, _to_pearson(name, between))
    reliability = retrainings * r / (1 + (retrainings - 1) * r)  # Spearman (1910), Brown (1910)
    return _from_pearson(name, math.sqrt(reliability))


def _to_pearson(name: Name, value: float) -> float:
    if name == "kendall":
        return math.sin(math.pi * value / 2)
    return 2 * math.sin(math.pi * value / 6) if name == "spearman" else value


def _from_pearson(name: Name, r: float) -> float:
    if name == "kendall":
        return 2 / math.pi * math.asin(r)
    return 6 / math.pi * math.asin(r / 2) if name == "spearman" else r
