"""One probe a file, all of one protocol."""

from trainscope.probes.probe import Need, Probe, attempt, available, find, lacking
from trainscope.probes.untouched import random_states, untouched

__all__ = ["Need", "Probe", "attempt", "available", "find", "lacking", "random_states", "untouched"]
