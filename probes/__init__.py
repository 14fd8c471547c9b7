"""One probe a file, all of one protocol."""

from trainscope.probes.probe import Need, Probe, available, find, lacking
from trainscope.probes.untouched import random_states, untouched

__all__ = ["Need", "Probe", "available", "find", "lacking", "random_states", "untouched"]
