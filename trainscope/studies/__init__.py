"""Studies: grids of runs that survive kills, in a store that several machines work on."""

from trainscope.studies.executing import execute
from trainscope.studies.spec import BaseModel, RunSpec

__all__ = ["BaseModel", "RunSpec", "execute"]
