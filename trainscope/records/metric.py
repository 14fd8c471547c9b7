"""What a test measures: its name, its unit, and which direction is better."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from trainscope.records.measurement import Json
from trainscope.records.typed import taken

HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that tells how well a network does its task.

    Attributes:
        name: As the field says it, like "accuracy", "mean IoU" or "perplexity".
        unit: Like "%" or "nats"; "" for a pure number. Numbers in "%" lie within 0 and 100.
        better: "higher" or "lower".
    """

    name: str
    unit: str
    better: str

    def __post_init__(self) -> None:
        """Check the direction and the name.

        Raises:
            ValueError: One of them is none.
        """
        if self.better not in (HIGHER, LOWER):
            raise ValueError(f"better is 'higher' or 'lower', not {self.better!r}")
        if not self.name.strip():
            raise ValueError("a metric has a name")

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, else -1: sign * value rises with quality."""
        return 1 if self.better == HIGHER else -1

    @property
    def label(self) -> str:
        """Return the title of an axis: the name, with the unit in brackets where there is one."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def fault(self, value: float) -> str | None:
        """Return why a number is no value of this metric, None where it is one."""
        if not math.isfinite(value):
            return f"{self.name} is a finite number, not {value}"
        if self.unit == "%" and not 0.0 <= value <= 100.0:
            return f"{self.name} is in percent, 0 to 100, not {value:g}"
        return None

    def to_json(self) -> Json:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Json) -> Metric:
        """Return the Metric that `to_json` wrote."""
        return taken(cls, raw)


ACCURACY = Metric("accuracy", "%", HIGHER)
"""Top-1 accuracy on a test half."""
LOSS = Metric("loss", "", LOWER)
"""The loss itself, where a task has no other metric."""
