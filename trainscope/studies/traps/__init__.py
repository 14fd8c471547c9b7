"""Traps that make a retraining look worse, or better, than it is; each with its evidence."""

from trainscope.studies.traps.detect import detect
from trainscope.studies.traps.trap import Trap, Weight

__all__ = ["Trap", "Weight", "detect"]
