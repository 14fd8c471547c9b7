"""Traps that make a retraining look worse, or better, than it is; each with its evidence."""

from trainscope.comparison.traps.detect import detect
from trainscope.comparison.traps.trap import Severity, Trap

__all__ = ["Severity", "Trap", "detect"]
