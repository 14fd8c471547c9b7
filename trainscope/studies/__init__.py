"""Studies: grids of runs that survive kills, in a store that several machines work on."""

from trainscope.studies.executing import execute
from trainscope.studies.results import results
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.studies.store import Store
from trainscope.studies.study import Study

__all__ = ["BaseModel", "RunSpec", "Store", "Study", "execute", "results"]
