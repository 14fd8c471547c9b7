"""What a test measures: its name, its unit, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from trainscope.records.measurement import Json
from trainscope.records.numbers import estimate, number
from trainscope.records.typed import record_of

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
    def is_accuracy(self) -> bool:
        """Return whether it is an accuracy in percent: what "trainability accuracy" is of."""
        return (self.unit, self.better) == ("%", HIGHER) and self.name.endswith("accuracy")

    @property
    def loss_unit(self) -> str:
        """Return the unit of the loss trained beside it: nats where it tells a cross-entropy."""
        named = self.name in ("mean IoU", "error") and self.unit == "%"
        told = self.unit == "nats" or "perplexity" in self.name or named
        return "nats" if self.is_accuracy or told else ""

    @property
    def ahead(self) -> str:
        """Return "above" or "below": where the better of two values is."""
        return "above" if self.better == HIGHER else "below"

    @property
    def behind(self) -> str:
        """Return "below" or "above": where the worse of two values is."""
        return "below" if self.better == HIGHER else "above"

    @property
    def worst(self) -> str:
        """Return "lowest" or "highest": where the worst of several values is."""
        return "lowest" if self.better == HIGHER else "highest"

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

    def points(self, gap: float, level: float) -> float:
        """Return a difference in points: of a percentage, or hundredths of the level.

        Args:
            gap: A difference of two values.
            level: A value near them, for metrics that have no scale of their own.
        """
        if self.unit == "%":
            return gap
        return 100 * gap / abs(level) if level else math.copysign(math.inf, gap) if gap else 0.0

    def best(self, values: Iterable[float]) -> float | None:
        """Return the best of some values, None of none."""
        return max(values, key=lambda value: self.sign * value, default=None)

    def written(self, value: float, places: int = 1, spread: float | None = None) -> str:
        """Write a value with its unit, like "97.3 ± 0.6 %" or "0.3521".

        Args:
            value: In the metric's unit.
            places: Decimals of a percentage; other numbers have four significant digits.
            spread: The standard deviation over seeds.
        """
        if self.unit == "%":
            more = "" if spread is None else f" ± {spread:.{places}f}"
            return f"{value:.{places}f}{more} %"
        text = number(value) if spread is None else estimate(value, spread)
        return f"{text} {self.unit}" if self.unit else text

    def called(self, value: float, places: int = 1, spread: float | None = None) -> str:
        """Write a value as `written`, with the metric's name before it unless it is an accuracy."""
        text = self.written(value, places, spread)
        return text if self.is_accuracy else f"{self.name} {text}"

    def change(self, difference: float, places: int = 2, sign: str = "") -> str:
        """Write a difference with its unit, where the metric is named: "1.20 points", "0.0123".

        Args:
            difference: Of two values.
            places: Decimals of a percentage.
            sign: "+" to write the sign of a gain too.
        """
        if self.unit == "%":
            return f"{difference:{sign}.{places}f} points"
        plus = "+" if sign and difference > 0 else ""
        text = f"{plus}{number(difference)}"
        return f"{text} {self.unit}" if self.unit else text

    def gap(self, difference: float, places: int = 2, sign: str = "") -> str:
        """Write a difference as `change`, and of what it is: "1.20 points", "0.0123 in loss"."""
        text = self.change(difference, places, sign)
        return text if self.unit else f"{text} in {self.name}"

    def to_json(self) -> Json:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Json) -> Metric:
        """Return the Metric that `to_json` wrote."""
        return record_of(cls, raw)


ACCURACY = Metric("accuracy", "%", HIGHER)
"""Top-1 accuracy on a test half."""
LOSS = Metric("loss", "", LOWER)
"""The loss itself, where a task has no other metric."""
