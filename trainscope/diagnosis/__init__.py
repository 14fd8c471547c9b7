"""A network measured before and after the sparsifying action, and what that says in words."""

from trainscope.diagnosis.flow import Outcome
from trainscope.diagnosis.front import diagnose, examine, measure

__all__ = ["Outcome", "diagnose", "examine", "measure"]
