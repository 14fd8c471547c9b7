"""The protocol that every criterion follows, and how one is asked for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from trainscope.errors import ActionError, TrainscopeError
from trainscope.foreign import reason
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit

Ranks = Literal["layer", "row", "network"]

WEIGHT_ONLY = frozenset({Statistic.WEIGHT})
EVERY = frozenset(Unit)


@runtime_checkable
class Criterion(Protocol):
    """A score for every filter or weight; the lowest are pruned.

    Scores are compared inside one layer, and across layers under a global ranking. A criterion may
    also have

    - `units`, a frozenset of what it can rank (`Unit`); by default filters, weights and blocks;
    - `comparable = False` where scores of two layers do not compare, so that there is no global
      ranking of it;
    - `ranks`, among which single weights are ranked where nobody says otherwise: those of a
      "layer" (the default), of an output "row", or of the whole "network", as its authors do;
    - `rounds`, in how many rounds it prunes, each on what the one before left: after round k of n
      a share of (1 - ratio)^(k/n) is left;
    - `counts(shapes, ratio)`, where it sets the layers' ratios itself (`Allotting`);
    - `repair(subject, asked, statistics)`, where it changes the weights that stay (`Repairing`).
    """

    @property
    def name(self) -> str:
        """The name a person types; a class attribute will do."""

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics it is given; a class attribute will do."""

    def score(self, subject: Subject, statistics: Statistics) -> Tensor:
        """Return the scores: [n] of the rows of `subject.weight`, or its shape for weights."""


@runtime_checkable
class Allotting(Criterion, Protocol):
    """A criterion that sets the ratio of every layer itself."""

    def counts(self, shapes: Sequence[Sequence[int]], ratio: float) -> Sequence[int]:
        """Return how many weights of each layer go."""


@runtime_checkable
class Repairing(Criterion, Protocol):
    """A criterion that changes the weights that stay, to make up for those that go."""

    def repair(self, subject: Subject, asked: LayerTarget, statistics: Statistics) -> Repaired:
        """Return what survives of a layer's single weights, and their values."""


@dataclass(frozen=True)
class LayerTarget:
    """What is asked of a layer that is repaired.

    Attributes:
        mask: What survives by the scores alone: bool, in the shape of the stored weight.
        ratio: The share of its weights that goes.
        n_m: N and M where N of every M consecutive inputs stay; None for single weights.
    """

    mask: Tensor
    ratio: float
    n_m: tuple[int, int] | None = None


@dataclass(frozen=True)
class Repaired:
    """What survives of a layer, bool, and its weights, zero elsewhere; both as it is stored."""

    mask: Tensor
    weight: Tensor


def units_of(criterion: Criterion) -> frozenset[Unit]:
    """Return what a criterion can rank."""
    found: frozenset[Unit] = getattr(criterion, "units", EVERY)
    return found


def ranks_of(criterion: Criterion) -> Ranks:
    """Return among which weights a criterion ranks where nobody says otherwise."""
    found: Ranks = getattr(criterion, "ranks", "layer")
    return found


def is_comparable(criterion: Criterion) -> bool:
    """Tell whether a criterion's scores of two layers compare."""
    return bool(getattr(criterion, "comparable", True))


def rounds_of(criterion: Criterion) -> int:
    """Return in how many rounds a criterion prunes."""
    return int(getattr(criterion, "rounds", 1))


def check_unit(criterion: Criterion, unit: Unit) -> None:
    """Refuse what a criterion cannot rank.

    Raises:
        ActionError: It cannot.
    """
    units = units_of(criterion)
    if unit in units:
        return
    others = {
        Unit.FILTERS: "l1, l2, taylor or random",
        Unit.WEIGHTS: "l1, l2 or random",
        Unit.BLOCKS: "l1, l2, random or influence",
    }
    ranked = " and ".join(str(each) for each in Unit if each in units)
    use = ""
    if unit is Unit.FILTERS and Unit.WEIGHTS in units:
        use = "use it with --structure unstructured or 2:4, or "
    raise ActionError(f"{criterion.name} ranks {ranked}, not {unit}; {use}choose {others[unit]}")


def scored(criterion: Criterion, subject: Subject, statistics: Statistics) -> Tensor:
    """Return a criterion's scores, held against what they must be.

    Raises:
        ActionError: They are none, or cannot be had.
    """
    check_unit(criterion, subject.unit)
    if subject.weight.is_complex():
        raise ActionError(
            f"the weights of {subject.name} are complex, and criteria rank real ones: leave it out "
            "by giving other layers their ratios (--ratios, ratios=)"
        )
    try:
        found = criterion.score(subject, statistics)
    except TrainscopeError:
        raise
    except Exception as error:  # whatever a criterion of somebody's raises
        raise ActionError(
            f"the criterion {criterion.name} fails on {subject.name}: {reason(error)}"
        ) from error
    weights = subject.unit is Unit.WEIGHTS
    shape = subject.weight.shape if weights else subject.weight.shape[:1]
    if not isinstance(found, Tensor) or found.shape != shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ActionError(
            f"the criterion {criterion.name} returned {got} for {subject.name}, not scores of "
            f"shape {tuple(shape)}"
        )
    found = found.detach()
    if torch.isnan(found).any():
        raise ActionError(
            f"the criterion {criterion.name} gives {subject.name} scores that are NaN; choose "
            "another criterion"
        )
    return found


def repaired(
    criterion: Repairing, subject: Subject, asked: LayerTarget, statistics: Statistics
) -> Repaired:
    """Return what a criterion makes of a layer, held against what it must be.

    Raises:
        ActionError: It is something else, or cannot be had.
    """
    try:
        found = criterion.repair(subject, asked, statistics)
    except TrainscopeError:
        raise
    except Exception as error:  # whatever a criterion of somebody's raises, or a factorisation
        raise ActionError(
            f"the criterion {criterion.name} cannot repair {subject.name}: {reason(error)}"
        ) from error
    shape = subject.weight.shape
    if found.mask.shape != shape or found.weight.shape != shape:
        raise ActionError(
            f"the criterion {criterion.name} repaired {subject.name} to another shape than "
            f"{tuple(shape)}"
        )
    if not torch.isfinite(found.weight).all():
        raise ActionError(
            f"the criterion {criterion.name} repaired {subject.name} to weights that are NaN or "
            "infinite; choose another criterion"
        )
    return found
