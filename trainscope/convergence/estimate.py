"""The estimate as a user receives it: when, how many more epochs, how sure, and in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from trainscope.records import Json, Metric, Shown
from trainscope.records.metric import ACCURACY

MANY = 1e7
"""Epochs, steps or tokens from which on four digits of their number are written."""
FEW_REACH = 1 / 3
"""Probability below which a target is called unreachable. Less than a half, as curves that seem to
level off rise on: so of the targets that are reached few are called so."""


class EstimateStatus(StrEnum):
    """What a user must know before the numbers. `SENTENCES` has a sentence for each."""

    OK = "ok"
    REACHED = "already reached"
    UNREACHABLE = "unreachable"
    FALLING = "falling"
    FLAT = "flat"
    TOO_FEW = "too few epochs"
    REFERENCE_SHORT = "reference never reaches the target"
    REFERENCE_DECAYED = "reference reached it in its decays"
    IMPOSSIBLE = "impossible target"
    DIVERGED = "diverged"
    EMPTY = "no records"


SENTENCES = {
    EstimateStatus.OK: "The {name} is still {rising}.",
    EstimateStatus.REACHED: "The target is reached within the epochs watched.",
    EstimateStatus.UNREACHABLE: "At this LR the {name} is expected to level off {behind} the "
    "target: it is more likely than not that more epochs do not reach it.",
    EstimateStatus.FALLING: "The {name} is {falling} now: the numbers hold only if it turns.",
    EstimateStatus.FLAT: "The {name} does not {rise} now, so the curve itself says little of when "
    "it will.",
    EstimateStatus.TOO_FEW: "Fewer than six epochs were watched: the numbers are rough, and "
    "without a reference there are none below four.",
    EstimateStatus.REFERENCE_SHORT: "The reference does not reach the target in its first LR "
    "stage; its own trend was carried on.",
    EstimateStatus.REFERENCE_DECAYED: "The reference reached the target in its decays, not in its "
    "first LR stage; the trend of that stage was carried on.",
    EstimateStatus.IMPOSSIBLE: "No {name} is {ahead} {limit} %.",
    EstimateStatus.DIVERGED: "The last records have no finite {name}: the run has diverged.",
    EstimateStatus.EMPTY: "The curve has no record with a finite {name}.",
}
"""With places for the words of a metric: see `sentence`."""


def sentence(status: EstimateStatus, metric: Metric = ACCURACY) -> str:
    """Return the sentence of a status, in the words of a metric."""
    up = metric.sign > 0
    return SENTENCES[status].format(
        name=metric.name,
        rise="rise" if up else "fall",
        rising="rising" if up else "falling",
        falling="falling" if up else "rising",
        ahead=metric.ahead,
        behind=metric.behind,
        limit="100" if up else "0",
    )


@dataclass(frozen=True)
class Interval:
    """A median and the interval about it; inf where a value is never reached, or unknown.

    Attributes:
        median: Half the probability lies on each side.
        low: Lower end.
        high: Upper end.
        horizon: The number that stands for all that is later: an end there was not estimated.
        beyond: Probability that the value lies beyond the horizon, or is never reached.
    """

    median: float
    low: float
    high: float
    horizon: float = math.inf
    beyond: float = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether the upper end was not estimated: it stands at the horizon, or nowhere."""
        return not math.isfinite(self.high) or self._is_late(self.high)

    @property
    def is_late(self) -> bool:
        """Return whether the median was not estimated: it stands at the horizon, or nowhere."""
        return not math.isfinite(self.median) or self._is_late(self.median)

    def as_far_as(self, horizon: float, beyond: float) -> Interval:
        """Return the same numbers, of which those at a horizon stand for all that is later."""
        return replace(self, horizon=horizon, beyond=beyond)

    def to_json(self) -> Json:
        """Return the three numbers, null for infinity, and the horizon where there is one."""
        names = ["median", "low", "high"]
        names += ["horizon", "beyond"] if math.isfinite(self.horizon) else []
        return {name: _finite(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, raw: Mapping[str, float | None]) -> Interval:
        """Read what `to_json` gives."""
        found = {name: math.inf if value is None else value for name, value in raw.items()}
        return cls(**found)

    def __str__(self) -> str:
        """Return the interval in whole numbers, like `63 (48 to 90)`; see `in_words`."""
        return self.in_words()

    def in_words(self, place: str = "", more: str = "") -> str:
        """Return the interval in whole numbers, like "epoch 63 (48 to 90)".

        Ends that stand at the horizon are not written: "epoch 63 (48 or later; not within 2000
        epochs with probability 0.14)", "not within 2000 epochs with probability 0.71 (epoch 340 at
        the earliest)".

        Args:
            place: The axis, where the numbers are places on it: "epoch".
            more: The axis, where they are a count that is added: "epoch".
        """
        middle, low, high = (_write(x) for x in (self.median, self.low, self.high))
        at = f"{place} " if place else ""
        if not self._is_late(self.high):
            if middle == low == high:
                return f"{at}{middle}" if math.isfinite(self.median) else middle
            if math.isfinite(self.median):
                return f"{at}{middle} ({low} to {high})"
            return f"{middle} ({at}{low} to {high})"
        if not self._is_late(self.median):
            end = "or more" if more else "or later"
            return f"{at}{middle} ({low} {end}; {self.missed(place, more)})"
        if self._is_late(self.low):
            return self.missed(place, more)
        return f"{self.missed(place, more)} ({at}{low} at the {'least' if more else 'earliest'})"

    def missed(self, place: str = "", more: str = "") -> str:
        """Return "not within 2000 epochs with probability 0.71": of what lies past the horizon."""
        unit = f" more {more}s" if more else f" {place}s" if place else ""
        chance = f"{min(max(self.beyond, 0.01), 0.99):.2f}"
        return f"not within {_write(self.horizon)}{unit} with probability {chance}"

    def _is_late(self, end: float) -> bool:
        return math.isfinite(self.horizon) and end >= self.horizon * (1 - 1e-9)


THE_STAGE, THE_SCHEDULE, THE_WATCHED = "the first LR stage", "the whole schedule", "those watched"
"""What extra epochs are added to."""
NEVER = Interval(math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Band:
    """The predicted accuracy, percent, if the present LR goes on: median, low and high by epoch."""

    epochs: tuple[float, ...] = ()
    median: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def to_json(self) -> Json:
        """Return the four columns."""
        return {name: list(getattr(self, name)) for name in ("epochs", "median", "low", "high")}


@dataclass(frozen=True)
class EarlyDecay:
    """How fast the accuracy, or another metric, was still improving when the LR first dropped.

    Attributes:
        epoch: The last epoch of the first stage.
        slope: Improvement per epoch in the metric's unit, from the last part of the stage.
        stderr: Its standard error.
        per_doubling: Improvement that doubling the stage would still have brought along that slope,
            at most: the slope per doubling of the epochs.
        too_early: True where the slope is above zero by two standard errors and a doubling would
            have brought at least half a point (`Metric.points`).
        explanation: One sentence.
    """

    epoch: float
    slope: float
    stderr: float
    per_doubling: float
    too_early: bool
    explanation: str

    def to_json(self) -> Json:
        """Return the fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Estimate(Shown):
    """When a small LR reaches a target, and how many epochs to add for it.

    Attributes:
        target: In the metric's unit.
        level: Probability that the intervals are to hold the truth with.
        first_passage: Epoch, counted from the start of retraining, at which the running maximum
            of the centred 5-epoch mean of the accuracy first reaches the target if the present LR
            goes on. Of what comes later than its `horizon` nothing is told but the probability.
        extra_epochs: Epochs to add to the first LR stage of the planned schedule so that the
            accuracy after its decays reaches the target; without a schedule, epochs beyond those
            watched until the first passage.
        reachable: Probability that the target is ever reached at this LR (with a schedule: after
            its decays): within the horizon of the first passage, 100 times what was watched.
        lr_time_bound: Epoch by which equal LR time would have been spent as the reference had spent
            when it reached the target; None without a reference that reached it. Upper bound.
        status: What to know first.
        explanation: Sentences: the status, the evidence, what decided the estimate.
        doubt: Of these, the one that says why the target may be out of reach; "" for none.
        curve: The predicted accuracy.
        early_decay: Whether the curve decayed too early; None where it has no decay.
        metric: What target and curve are values of.
        per: What passages and extra epochs count: "epoch", "step" or "token".
        final: Where the plan ends, in the metric's unit, low below high; None without a plan, or
            where fewer than four records are known.
        lengthens: What the extra epochs are added to: "the first LR stage", "the whole schedule",
            which they stretch, or "those watched".
        withheld: Why no curve is predicted, a sentence; "" where one is, or where the target is
            reached.
    """

    target: float
    level: float
    first_passage: Interval
    extra_epochs: Interval
    reachable: float
    lr_time_bound: float | None
    status: EstimateStatus
    explanation: str
    doubt: str = ""
    curve: Band = Band()
    early_decay: EarlyDecay | None = None
    metric: Metric = ACCURACY
    per: str = "epoch"
    final: Interval | None = None
    lengthens: str = THE_WATCHED
    withheld: str = ""

    @property
    def is_known(self) -> bool:
        """Return whether it is told when, be it never: of no or too few records it is not."""
        few = self.status in (EstimateStatus.EMPTY, EstimateStatus.TOO_FEW)
        return not few or math.isfinite(self.first_passage.median)

    @property
    def beyond_lr_time(self) -> str:
        """Return the sentence that says that equal LR time disagrees; "" where it does not."""
        bound, passage = self.lr_time_bound, self.first_passage
        if bound is None or self.status is EstimateStatus.REACHED:
            return ""
        if passage.low <= bound <= passage.high or (bound > passage.high and passage.is_open):
            return ""
        side = "earlier" if bound < passage.low else "later"
        at = f"{self.per} {bound:.0f}"
        return f"Equal LR time would put it at {at}, {side} than all of the interval."

    def __repr__(self) -> str:
        """Return one line: the target, the extra epochs and their interval, the status."""
        extra, goal = self.extra_epochs, self.metric.called(self.target, 2)
        if not self.is_known:
            return f"<Estimate to {goal}: unknown, {self.status}>"
        if math.isfinite(extra.horizon) and extra.is_open:
            told = extra.in_words(more=self.per)
            return f"<Estimate to {goal}: {told} ({self.level:.0%} interval), {self.status}>"
        return (
            f"<Estimate to {goal}: {extra.median:.4g} extra {self.per}s "
            f"({extra.low:.4g} to {extra.high:.4g}, {self.level:.0%} interval), {self.status}>"
        )

    def to_json(self) -> Json:
        """Return the attributes as a JSON object; null for infinity."""
        return {
            "metric": self.metric.to_json(),
            "per": self.per,
            "target": self.target,
            "level": self.level,
            "first_passage": self.first_passage.to_json(),
            "extra_epochs": self.extra_epochs.to_json(),
            "reachable": self.reachable,
            "lr_time_bound": self.lr_time_bound,
            "status": str(self.status),
            "explanation": self.explanation,
            "doubt": self.doubt,
            "curve": self.curve.to_json(),
            "final": None if self.final is None else self.final.to_json(),
            "lengthens": self.lengthens,
            "withheld": self.withheld,
            "early_decay": None if self.early_decay is None else self.early_decay.to_json(),
        }


def over(per: str, text: str) -> str:
    """Return sentences told over epochs for another axis: of steps, a mean is one of records."""
    if per == "epoch":
        return text
    text = re.sub(r"\b(\d+)-epoch mean", r"\1-record mean", text)
    text = text.replace("epoch to epoch", "record to record")
    text = re.sub(r"\b([Aa])n (?=epoch)", r"\1 ", text)
    # An option, like --epochs, keeps its name.
    return re.sub(r"(?<!-)\b([Ee])poch", lambda e: per.capitalize() if e[1] == "E" else per, text)


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return value if math.isfinite(value) else None


def _write(value: float) -> str:
    """Return a count of epochs for a sentence."""
    if not math.isfinite(value):
        return "never"
    if value >= MANY:
        return f"{value:.4g}"
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"
