"""Criteria: which filters or weights matter least. One file each; the registry is here."""

from __future__ import annotations

from trainscope.errors import ActionError
from trainscope.sparsify.criteria import bn_scale, draw, magnitude
from trainscope.sparsify.criteria.criterion import Context, Criterion, Subject

CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        magnitude.MeanAbsolute(),
        magnitude.RootMeanSquare(),
        draw.Random(),
        bn_scale.BatchNormScale(),
    )
}
"""Every criterion by name. A new one is one file and one line."""


def find(name: str) -> Criterion:
    """Return a criterion by name.

    Raises:
        ActionError: None has that name.
    """
    if name not in CRITERIA:
        raise ActionError(f"no criterion is named '{name}'; choose from {', '.join(CRITERIA)}")
    return CRITERIA[name]


__all__ = ["CRITERIA", "Context", "Criterion", "Subject", "find"]
