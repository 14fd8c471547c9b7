"""Studies: grids of runs that survive kills, in a store that several machines work on.

The names below are imported when they are first used: what a store holds is read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainscope.studies.executing import execute
    from trainscope.studies.results import runs_of
    from trainscope.studies.spec import BaseModel, RunSpec
    from trainscope.studies.store import Store
    from trainscope.studies.study import Study

_HOMES = {
    "BaseModel": "trainscope.studies.spec",
    "RunSpec": "trainscope.studies.spec",
    "Store": "trainscope.studies.store",
    "Study": "trainscope.studies.study",
    "execute": "trainscope.studies.executing",
    "runs_of": "trainscope.studies.results",
}

__all__ = ["BaseModel", "RunSpec", "Store", "Study", "execute", "runs_of"]


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name):
        """Import a public name from its home."""
        if name not in _HOMES:
            raise AttributeError(f"module 'trainscope.studies' has no attribute '{name}'")
        return getattr(import_module(_HOMES[name]), name)
