"""One probe a file, all of one protocol.

The class of every installed probe, ours and other packages', is a name of this package too.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from trainscope.data.untouched import random_states
from trainscope.probes.abilities import LighterProbe, PartialProbe, TwinProbe
from trainscope.probes.probe import DescribedProbe, Need, Probe, attempt, available, find, lacking
from trainscope.probes.processes.ranks import alone
from trainscope.probes.scalar_spec import GROUP, ScalarSpec
from trainscope.probes.subject.untouched import untouched

if TYPE_CHECKING:
    from trainscope.probes.activity import Activity
    from trainscope.probes.curvature import Curvature
    from trainscope.probes.gradient import Gradient
    from trainscope.probes.jacobian import Jacobian
    from trainscope.probes.tangent_kernel import TangentKernel
    from trainscope.probes.trainability_accuracy import TrainabilityAccuracy

__all__ = [
    "Activity",
    "Curvature",
    "DescribedProbe",
    "Gradient",
    "Jacobian",
    "LighterProbe",
    "Need",
    "PartialProbe",
    "Probe",
    "ScalarSpec",
    "TangentKernel",
    "TrainabilityAccuracy",
    "TwinProbe",
    "alone",
    "attempt",
    "available",
    "find",
    "lacking",
    "random_states",
    "untouched",
]


def __getattr__(name: str) -> Any:
    """Import the class of an installed probe."""
    for point in entry_points(group=GROUP):
        if point.attr == name:
            return point.load()
    raise AttributeError(f"module 'trainscope.probes' has no attribute '{name}'")
