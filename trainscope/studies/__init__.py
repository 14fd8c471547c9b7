"""Studies: grids of runs that survive kills, in a store that several machines work on.

The names below are imported when they are first used: what a store holds is read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainscope.studies.executing import execute
    from trainscope.studies.spec import BaseModel, RunSpec
    from trainscope.studies.store import Store
    from trainscope.studies.study import Study

_HOMES = {
    "BaseModel": "trainscope.studies.spec",
    "RunSpec": "trainscope.studies.spec",
    "Store": "trainscope.studies.store",
    "Study": "trainscope.studies.study",
    "execute": "trainscope.studies.executing",
}

__all__ = ["BaseModel", "RunSpec", "Store", "Study", "execute"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
