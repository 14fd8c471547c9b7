"""trainscope: what pruning did to a network's trainability, and what retraining will need.

The names below are imported when they are first used, so that `import trainscope` is instant.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trainscope.version import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from trainscope import criteria, data, probes, studies, task
    from trainscope.comparison.comparison import Comparison, compare
    from trainscope.convergence import Estimate, LearningCurve
    from trainscope.convergence import estimate_extra_epochs as estimate
    from trainscope.diagnosis import Outcome, diagnose, examine, measure
    from trainscope.errors import TrainscopeError
    from trainscope.networks import Network, open_checkpoint, save_checkpoint
    from trainscope.probes.hooks import ProbeHook
    from trainscope.records import Diagnosis, Measurement, Run
    from trainscope.sparsify import Action
    from trainscope.task import Task
    from trainscope.training.plans import GradualPruning, GReg1, GReg2, IterativePruning
    from trainscope.training.schedule import LRSchedule, parse_schedule

_HERE = Path(__file__).parent
if not (_HERE / "probes").is_dir():  # a clone that is not installed: the rooms lie side by side
    __path__.append(str(_HERE.parent))

_HOMES = {
    "Action": "trainscope.sparsify",
    "Comparison": "trainscope.comparison.comparison",
    "Diagnosis": "trainscope.records",
    "Estimate": "trainscope.convergence",
    "GReg1": "trainscope.training.plans",
    "GReg2": "trainscope.training.plans",
    "GradualPruning": "trainscope.training.plans",
    "IterativePruning": "trainscope.training.plans",
    "LRSchedule": "trainscope.training.schedule",
    "LearningCurve": "trainscope.convergence",
    "Measurement": "trainscope.records",
    "Network": "trainscope.networks",
    "Outcome": "trainscope.diagnosis",
    "ProbeHook": "trainscope.probes.hooks",
    "Task": "trainscope.task",
    "Run": "trainscope.records",
    "TrainscopeError": "trainscope.errors",
    "compare": "trainscope.comparison.comparison",
    "diagnose": "trainscope.diagnosis",
    "estimate": "trainscope.convergence",
    "examine": "trainscope.diagnosis",
    "measure": "trainscope.diagnosis",
    "open_checkpoint": "trainscope.networks",
    "parse_schedule": "trainscope.training.schedule",
    "save_checkpoint": "trainscope.networks",
}
_ROOMS = ("criteria", "data", "probes", "studies", "task")
"""Rooms whose names a person needs beside those above: `trainscope.task.FromLoss`."""
_OTHER_NAMES = {"estimate": "estimate_extra_epochs"}

__all__ = [
    "Action",
    "Comparison",
    "Diagnosis",
    "Estimate",
    "GReg1",
    "GReg2",
    "GradualPruning",
    "IterativePruning",
    "LRSchedule",
    "LearningCurve",
    "Measurement",
    "Network",
    "Outcome",
    "ProbeHook",
    "Run",
    "Task",
    "TrainscopeError",
    "__version__",
    "compare",
    "criteria",
    "data",
    "diagnose",
    "estimate",
    "examine",
    "measure",
    "open_checkpoint",
    "parse_schedule",
    "probes",
    "save_checkpoint",
    "studies",
    "task",
]


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name):
        """Import a public name from its home."""
        if name in _ROOMS:
            return import_module(f"trainscope.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'trainscope' has no attribute '{name}'")
        return getattr(import_module(_HOMES[name]), _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
