"""Criteria: which filters or weights matter least. One file each; the registry is here."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from trainscope.errors import ActionError
from trainscope.foreign import reason
from trainscope.sparsify.criteria import (
    bn_scale,
    draw,
    erk,
    fisher,
    grasp,
    lamp,
    magnitude,
    median,
    snip,
    sparsegpt,
    surgeon,
    synflow,
    taylor,
    wanda,
)
from trainscope.sparsify.criteria.criterion import (
    Allotting,
    Criterion,
    LayerTarget,
    Repaired,
    Repairing,
    scored,
)
from trainscope.sparsify.statistics import Statistic, Statistics, Subject, Unit

GROUP = "trainscope.criteria"
"""The entry points of criteria of other packages."""

CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        magnitude.MeanAbsolute(),
        magnitude.RootMeanSquare(),
        draw.Random(),
        bn_scale.BatchNormScale(),
        median.GeometricMedian(),
        taylor.Taylor(),
        taylor.SecondTaylor(),
        fisher.Fisher(),
        fisher.Damage(),
        surgeon.Surgeon(),
        sparsegpt.SparseGPT(),
        wanda.Wanda(),
        snip.ConnectionSensitivity(),
        grasp.GradientSignal(),
        synflow.SynapticFlow(),
        lamp.LayerAdaptiveMagnitude(),
        erk.ErdosRenyiKernel(),
    )
}
"""Every criterion of ours by name. A new one is one file and one line."""


def available() -> dict[str, Criterion | EntryPoint]:
    """Return every installed criterion by name, ours first; others' are not loaded."""
    found: dict[str, Criterion | EntryPoint] = dict(CRITERIA)
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return found


def find(name: str) -> Criterion:
    """Return a criterion by name, ours or one that another package brings.

    Raises:
        ActionError: None has that name, or that of another package cannot be loaded.
    """
    if name in CRITERIA:  # to ask all packages takes 20 ms, and a study asks for every run
        return CRITERIA[name]
    found = available()
    if name not in found:
        raise ActionError(f"no criterion is named '{name}'; choose from {', '.join(found)}")
    criterion = found[name]
    if not isinstance(criterion, EntryPoint):
        return criterion
    try:
        loaded = criterion.load()
        loaded = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever another package raises
        raise ActionError(
            f"the criterion '{name}' ({criterion.value}) cannot be loaded: {reason(error)}"
        ) from error
    return as_criterion(loaded)


def as_criterion(given: object) -> Criterion:
    """Return a criterion that was given by name or as an object.

    Raises:
        ActionError: It is none; the message says what it lacks.
    """
    if isinstance(given, str):
        return find(given)
    lacking = [name for name in ("name", "needs", "score") if not hasattr(given, name)]
    if isinstance(given, type):
        raise ActionError(f"the criterion is the class {given.__name__}: give an object of it")
    if lacking:
        raise ActionError(
            f"the criterion is {type(given).__name__} without {', '.join(lacking)}: give a name "
            f"({', '.join(CRITERIA)}) or an object that has them"
        )
    assert isinstance(given, Criterion)
    if not isinstance(given.name, str) or not given.name:
        raise ActionError(f"the name of the criterion {type(given).__name__} is no text")
    wrong = [each for each in given.needs if each not in frozenset(Statistic)]
    if wrong:
        known = ", ".join(f"'{each}'" for each in Statistic)
        raise ActionError(
            f"the criterion {given.name} needs {wrong[0]!r}, which is no statistic: choose from "
            f"{known}"
        )
    return given


__all__ = [
    "CRITERIA",
    "GROUP",
    "Allotting",
    "Criterion",
    "LayerTarget",
    "Repaired",
    "Repairing",
    "Statistic",
    "Statistics",
    "Subject",
    "Unit",
    "as_criterion",
    "available",
    "find",
    "scored",
]
