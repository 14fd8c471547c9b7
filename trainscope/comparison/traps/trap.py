"""One trap that a setting fell into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trainscope.records import Json


class Severity(StrEnum):
    """How much a trap matters."""

    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap.

    Attributes:
        name: Its name, such as "decayed too early".
        label: The setting that fell into it.
        sentence: What happened and what to do, in words.
        evidence: The numbers behind it, by name.
        weight: Whether the result is in doubt, or the reader should know.
        runs: How many of the setting's runs show it, and how many there are.
        epoch: Where on the learning curve it happened, for a mark in a plot.
    """

    name: str
    label: str
    sentence: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    weight: Severity = Severity.WARNING
    runs: tuple[int, int] = (1, 1)
    epoch: int | None = None

    def as_dict(self) -> Json:
        """Return the fields for JSON."""
        return {
            "trap": self.name,
            "setting": self.label,
            "sentence": self.sentence,
            "evidence": dict(self.evidence),
            "weight": str(self.weight),
            "runs": list(self.runs),
            "epoch": self.epoch,
        }
