"""trainscope: what pruning did to a network's trainability, and what retraining will need.

The names below are imported when they are first used, so that `import trainscope` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainscope.diagnosis import Outcome, diagnose, examine
    from trainscope.errors import TrainscopeError
    from trainscope.networks import Network, open_checkpoint, save_checkpoint
    from trainscope.records import Diagnosis, Measurement
    from trainscope.sparsify import Action
    from trainscope.training.schedule import LRSchedule, parse_schedule

_HOMES = {
    "Action": "trainscope.sparsify",
    "Diagnosis": "trainscope.records",
    "LRSchedule": "trainscope.training.schedule",
    "Measurement": "trainscope.records",
    "Network": "trainscope.networks",
    "Outcome": "trainscope.diagnosis",
    "TrainscopeError": "trainscope.errors",
    "diagnose": "trainscope.diagnosis",
    "examine": "trainscope.diagnosis",
    "open_checkpoint": "trainscope.networks",
    "parse_schedule": "trainscope.training.schedule",
    "save_checkpoint": "trainscope.networks",
}

__all__ = [
    "Action",
    "Diagnosis",
    "LRSchedule",
    "Measurement",
    "Network",
    "Outcome",
    "TrainscopeError",
    "diagnose",
    "examine",
    "open_checkpoint",
    "parse_schedule",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainscope' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
