"""A network measured before and after the sparsifying action, and what that says in words."""

from trainscope.diagnosis.flow import PROBES, Outcome, diagnose, examine, measure

__all__ = ["PROBES", "Outcome", "diagnose", "examine", "measure"]
