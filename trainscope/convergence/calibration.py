"""How far off the forecasts were on runs whose end is known: the widths of the intervals.

`calibration.json` holds, for every problem that was calibrated on, the quantiles of the
standardised error z = (log true - log forecast) / scale, and how often a target was reached, by the
weight of what sees it reached. Problems count equally; those of RetrainBench are named by their
data and network. Of a curve that is watched alone it holds how the probability to reach a level
goes with what the curve shows (`Reach`), and by how much that changes without each problem. Some
may be left out, which is how the benchmarks judge the estimator on problems it has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from trainscope.convergence.passage import Floats

KINDS = ("matched", "alone", "rule", "loss")
"""With a reference; without; by the ratio of the LRs alone; with a reference, of other metrics than
percentages."""
PROBABILITIES = np.linspace(0.025, 0.975, 39)
"""At which each problem's quantiles are kept."""
CAUTIOUS = {"matched": 0.4, "alone": 0.3, "loss": 0.4}
"""The share of problems whose passages may come earlier than the lower ends have it, in the place
of all problems' mean."""
_TRIED = np.linspace(0.005, 0.995, 199)
EDGES = np.array([0.0, 0.02, 0.1, 0.5, 0.9, 1.0])
"""Edges of the bins of the weight in sight."""


@dataclass(frozen=True)
class Errors:
    """Standardised errors of one kind of forecast, pooled over problems.

    Attributes:
        z: [N], sorted: log(true / forecast) over the forecast's scale.
        centred: True where the forecast itself is to stay the median, as the errors' median differs
            in sign from problem to problem. (Equal LR time is late on all of them.)
        reach: [B], share of targets that were reached, by bin of the weight in sight, over the
            share of those in full sight; rising to 1. Of forecasts with a reference.
    """

    z: Floats
    reach: Floats
    centred: bool = True

    def below(self, z: Floats) -> Floats:
        """Return the probability that the error is at most z, [M]."""
        return np.interp(z, self.quantile(_TRIED), _TRIED, left=0.0, right=1.0)

    def quantile(self, probability: Floats | float) -> Floats:
        """Return the quantiles of z, of the shape of `probability`."""
        z = np.interp(probability, self._places, self.z)
        if not self.centred:
            return np.asarray(z)
        late = np.asarray(probability) > 0.5
        return np.where(late, np.maximum(z, 0.0), np.minimum(z, 0.0))

    @cached_property
    def _places(self) -> Floats:
        """Return the probabilities that the sorted errors stand for, [N]."""
        return np.asarray((np.arange(len(self.z)) + 0.5) / len(self.z))

    def reached(self, in_sight: Floats) -> Floats:
        """Return the probability that a target is reached, [M], from the weight in sight."""
        middle = (EDGES[1:] + EDGES[:-1]) / 2
        middle[0], middle[-1] = 0.0, 1.0
        return np.asarray(np.interp(in_sight, middle, self.reach))


@dataclass(frozen=True)
class Reach:
    """How the probability that a percentage watched alone reaches a level goes with what it shows.

    Of other metrics the laws that level off told no more on problems that were put aside.

    Attributes:
        weights: [4], of `Chances.columns`.
    """

    weights: Floats

    def probability(self, columns: Floats) -> Floats:
        """Return the probability that each level is ever reached, [M].

        Args:
            columns: [M, 4], of `Chances`.
        """
        return np.asarray(1 / (1 + np.exp(-(columns @ self.weights))))


@dataclass(frozen=True)
class Calibration:
    """The errors of every kind of forecast, and what a level's being reached goes with."""

    kinds: Mapping[str, Errors]
    reach: Reach

    def __getitem__(self, kind: str) -> Errors:
        """Return the errors of one of `KINDS`."""
        return self.kinds[kind]


def pool(
    problems: Sequence[Mapping[str, Any]], *, centred: bool = True, cautious: float | None = None
) -> Errors:
    """Return the errors of several problems, each with the same weight.

    Args:
        problems: Objects with `z` (quantiles at `PROBABILITIES`) and, where known, `seen` and
            `reached` (counts by bin of the weight in sight).
        centred: As in `Errors`.
        cautious: The share of problems whose early errors are to be larger than those returned, as
            problems differ in them; None for those of all together.
    """
    own = np.array([p["z"] for p in problems], dtype=np.float64)
    z = np.sort(own, axis=None)
    if cautious is not None:
        place = (np.arange(len(z)) + 0.5) / len(z)
        early = np.interp(place, PROBABILITIES, np.quantile(own, cautious, axis=0))
        z = np.sort(np.where(place < 0.5, np.minimum(early, 0.0), np.maximum(z, 0.0)))
    bins = len(EDGES) - 1
    seen, reached = np.zeros(bins), np.zeros(bins)
    for problem in problems:
        if "seen" in problem and (total := sum(problem["seen"])):
            seen += np.asarray(problem["seen"]) * (100.0 / total)
            reached += np.asarray(problem["reached"]) * (100.0 / total)
    # Pool neighbours until the share rises; half a success and a failure keep it off 0 and 1.
    share = _rising((reached + 0.5) / (seen + 1.0), seen + 1.0)
    # Targets in full sight that were not reached were late, which the quantiles tell of; what is
    # told here is how much rarer it is to reach those that are not.
    return Errors(z, share / share[-1], centred)


@lru_cache(maxsize=64)
def load(*without: str) -> Calibration:
    """Return the calibration that the package ships.

    Args:
        without: Problems to leave out, by their names in the file or by how these begin.
    """
    text = files("trainscope.convergence").joinpath("calibration.json").read_text("utf-8")
    whole = json.loads(text)
    raw = whole["kinds"]
    left_out = tuple(f"{name} " for name in without)
    kinds = {
        kind: pool(
            [e for name, e in raw[kind].items() if not f"{name} ".startswith(left_out)],
            centred=kind != "rule",
            cautious=CAUTIOUS.get(kind),
        )
        for kind in KINDS
    }
    reach = whole["reach"]
    shifts = [s for name, s in reach["without"].items() if f"{name} ".startswith(left_out)]
    return Calibration(kinds, Reach(np.sum([reach["all"], *shifts], axis=0)))


def _rising(values: Floats, weights: Floats) -> Floats:
    """Return the closest values that never fall (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([float(value), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            v, w, n = blocks.pop()
            u = blocks[-1]
            blocks[-1] = [(u[0] * u[1] + v * w) / (u[1] + w), u[1] + w, u[2] + n]
    return np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])
