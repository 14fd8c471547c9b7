"""Criteria by which filters, weights or blocks are ranked, and what one of your own needs.

The criteria themselves stand in `trainscope.sparsify.criteria`, one file each.
"""

from trainscope.sparsify.criteria import (
    CRITERIA,
    Allotting,
    Criterion,
    LayerTarget,
    Repaired,
    Repairing,
    Statistic,
    Statistics,
    Subject,
    Unit,
    available,
    find,
)

__all__ = [
    "CRITERIA",
    "Allotting",
    "Criterion",
    "LayerTarget",
    "Repaired",
    "Repairing",
    "Statistic",
    "Statistics",
    "Subject",
    "Unit",
    "available",
    "find",
]
