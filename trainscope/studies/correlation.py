"""What was found of columns that go with the end of retraining: frozen records and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from trainscope.errors import RecordError
from trainscope.records import Json
from trainscope.studies.association import Name

FAMILY = "trainscope.correlation/"
SCHEMA = FAMILY + "1"
TOGETHER = "all together"


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One coefficient of association.

    Attributes:
        value: In [-1, 1].
        low: The lower end of its bootstrap interval; None where there are too few candidates.
        high: The upper end.
        p: Two-sided, of no association; None where it is not told.
        interval_method: "BCa" or "percentile"; "" for none.
        p_method: "exact", "permutations" or "normal"; "" for none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    interval_method: str = ""
    p_method: str = ""


@dataclass(frozen=True, slots=True)
class Predictor:
    """What one column says of the end of retraining.

    Attributes:
        column: Its name.
        candidates: How many have a number in it.
        better: Which direction of it is better; None where nobody says.
        coefficients: By name; empty where there is a `reason`.
        reason: Why there are none.
        anomaly: The share of candidates that end better than the one that the column ranks first
            (Feng et al., 2024: oracle pruning's choice, where the column is the pruned train loss).
        counterexample: Of two candidates that differ in the column and at the end, how often the
            one that the column ranks first ends worse.
    """

    column: str
    candidates: int
    better: str | None = None
    coefficients: Mapping[Name, Coefficient] = field(default_factory=dict)
    reason: str = ""
    anomaly: float | None = None
    counterexample: float | None = None

    @property
    def strength(self) -> float:
        """Return |tau|, -1 where there is none."""
        found = self.coefficients.get("kendall")
        return -1.0 if found is None else abs(found.value)


@dataclass(frozen=True, slots=True)
class NoiseCeiling:
    """How far the noise of retraining lets anything predict its end.

    Attributes:
        candidates: Those that were retrained more than once.
        retrainings: Of these candidates, all together.
        another: How one retraining of a candidate goes with another one of it.
        attainable: What a number without noise could reach, the values being normal: value and
            interval.
    """

    candidates: int
    retrainings: int
    another: Mapping[Name, Coefficient]
    attainable: Mapping[Name, Coefficient]


@dataclass(frozen=True, slots=True)
class Correlation:
    """How columns go with the end of retraining, over candidates.

    Attributes:
        target: The column of the end.
        better: Which direction of it is better.
        candidates: How many.
        retrainings: Of them, all together.
        strata: The names of the strata, where candidates are compared within them alone.
        level: The probability that intervals hold.
        predictors: One a column, the strongest first.
        together: The regression on all columns that have a number for every candidate; None for
            fewer than two.
        ceiling: None where no candidates were retrained more than once.
        notes: What a reader should know, each one sentence.
    """

    target: str
    better: str
    candidates: int
    retrainings: int
    strata: tuple[str, ...]
    level: float
    predictors: tuple[Predictor, ...]
    together: Predictor | None
    ceiling: NoiseCeiling | None
    notes: tuple[str, ...]

    def __getitem__(self, column: str) -> Predictor:
        """Return what a column says.

        Raises:
            RecordError: It was not correlated.
        """
        for each in self.predictors:
            if each.column == column:
                return each
        raise RecordError(f"no column '{column}' was correlated with {self.target}")

    def to_json(self) -> Json:
        """Return all of it in plain types, None for what is not known."""
        return {"schema": SCHEMA, **asdict(self)}
