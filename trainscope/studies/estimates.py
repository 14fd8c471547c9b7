"""How many more epochs the slower settings need to reach the best one, by the estimator."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trainscope.convergence import (
    Estimate,
    Interval,
    LearningCurve,
    Status,
    estimate_extra_epochs,
)
from trainscope.records import Json
from trainscope.studies.curves import FEWEST_EPOCHS, mean_curve
from trainscope.studies.facts import schedule_of
from trainscope.studies.groups import Group
from trainscope.studies.significance import welch

MOST = 12
"""So many settings are estimated, those furthest behind first."""
LEAST_EXTRA = 0.5
"""Epochs below which an estimate has nothing to say."""
BEHIND = 0.3
"""Points behind before an estimate is worth its time."""


@dataclass(frozen=True)
class GroupEstimate:
    """What one setting needs to reach another's final accuracy.

    Attributes:
        label: The setting.
        reference: The setting with the larger LR that it is held against.
        target: The accuracy to reach, percent.
        watched: The epochs of its first LR stage that the estimate has seen.
        result: The estimator's answer.
        small: The curve watched.
        large: The curve of the reference.
    """

    label: str
    reference: str
    target: float
    watched: int
    result: Estimate
    small: LearningCurve
    large: LearningCurve

    @property
    def unreachable(self) -> bool:
        """Return whether the evidence says that more epochs at this LR never get there."""
        return not math.isfinite(self.result.extra_epochs.median)

    def sentence(self) -> str:
        """Return the estimate in words."""
        extra = self.result.extra_epochs
        if self.unreachable:
            return (
                f"{self.label} is not expected to reach the {self.target:.1f} % of "
                f"{self.reference}, however long it is retrained: {self.result.explanation}"
            )
        to = f"to {extra.high:.0f}" if math.isfinite(extra.high) else "or more"
        line = (
            f"{self.label} needs about {extra.median:.0f} more first-stage epochs "
            f"({extra.low:.0f} {to}, 80 % interval) to reach the {self.target:.1f} % of "
            f"{self.reference}"
        )
        if self.result.status is not Status.OK:
            line += f"; not to be relied on ({self.result.status})"
        return line + "."

    def as_dict(self) -> Json:
        """Return the fields for JSON; endless is null."""
        result = self.result
        return {
            "setting": self.label,
            "reference": self.reference,
            "target": self.target,
            "watched": self.watched,
            "sentence": self.sentence(),
            "extra_epochs": _interval(result.extra_epochs),
            "first_passage": _interval(result.first_passage),
            "reachable": result.reachable,
            "lr_time_bound": _finite(result.lr_time_bound),
            "status": str(result.status),
            "explanation": result.explanation,
        }


def _goes_on(longer: Group, shorter: Group) -> bool:
    """Say whether one setting is another with a longer first LR stage."""
    return longer.lr == shorter.lr and (longer.first_stage or 0) > (shorter.first_stage or 0)


def estimates(groups: Sequence[Group]) -> list[GroupEstimate]:
    """Estimate the extra epochs of every setting that a larger LR beats on one pruned network.

    Each watches the mean over seeds of its first LR stage; the target is the final accuracy of the
    best setting with a larger LR.

    Args:
        groups: The settings.
    """
    families: dict[Hashable, list[Group]] = {}
    for item in groups:
        if item.pruned_alike is not None and item.lr is not None and item.mean is not None:
            families.setdefault(item.pruned_alike, []).append(item)
    behind: list[tuple[float, Group, Group]] = []
    for family in families.values():
        for item in family:
            if any(_goes_on(other, item) for other in family):
                continue  # the longer run is the evidence, and an estimate from less is none
            rivals = [other for other in family if (other.lr or 0) > (item.lr or 0)]
            best = max(rivals, key=lambda other: other.mean or 0.0, default=None)
            if best is None or (item.first_stage or 0) < FEWEST_EPOCHS or not best.first.epochs:
                continue
            ahead = welch(best.finals, item.finals)
            sure = ahead.significant or min(len(best.finals), len(item.finals)) < 2
            if ahead.value >= BEHIND and sure:
                behind.append((ahead.value, item, best))
    behind.sort(key=lambda part: -part[0])
    found = [_estimate(item, best) for _, item, best in behind[:MOST]]
    return [estimate for estimate in found if estimate is not None]


def _estimate(item: Group, best: Group) -> GroupEstimate | None:
    assert best.mean is not None
    stage = item.first_stage
    assert stage is not None
    small, large = mean_curve(item, stage), mean_curve(best)
    if small is None or large is None:
        return None
    schedule = schedule_of(item.first)
    result = estimate_extra_epochs(
        small,
        target=best.mean,
        reference=large,
        schedule=None if schedule is None else str(schedule),
        total_epochs=None if schedule is None else schedule.total,
    )
    if result.extra_epochs.median < LEAST_EXTRA:  # it says that the decays cost what is missing
        return None
    return GroupEstimate(item.label, best.label, best.mean, stage, result, small, large)


def _interval(interval: Interval) -> Json:
    return {name: _finite(getattr(interval, name)) for name in ("median", "low", "high")}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
