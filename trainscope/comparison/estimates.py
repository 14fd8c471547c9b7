"""How many more epochs the slower settings need to reach the best one, by the estimator."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainscope.comparison.curves import FEWEST_EPOCHS, mean_curve
from trainscope.comparison.facts import last_epoch, schedule_of
from trainscope.comparison.grounds import Ground, Known, kin, share
from trainscope.comparison.settings import Setting
from trainscope.comparison.significance import LEAST, untested, welch
from trainscope.convergence import (
    Estimate,
    EstimateStatus,
    LearningCurve,
    estimate_extra_epochs,
)
from trainscope.convergence.estimate import THE_SCHEDULE
from trainscope.convergence.scheduled import is_scheduled
from trainscope.convergence.stage import FEW, first_stage
from trainscope.records import Json

MOST = 12
"""So many settings are estimated, those furthest behind first."""
LEAST_EXTRA = 0.5
"""Epochs below which an estimate has nothing to say."""
LIKELY = 0.5
"""A chance below which no number of epochs is named."""
BY_DECAYS = (EstimateStatus.REFERENCE_SHORT, EstimateStatus.REFERENCE_DECAYED)
"""What a reference that ends at the target says where its first LR stage does not get there."""
UNLIKELY = 0.2
"""A chance to reach the target below which it is called out of reach."""


@dataclass(frozen=True)
class GroupEstimate:
    """What one setting needs to reach another's final accuracy.

    Attributes:
        label: The setting.
        reference: The setting with the larger LR that it is held against.
        target: What to reach, in the metric's unit.
        watched: The epochs that the estimate has seen: of its first LR stage, or, of a schedule
            that falls all along, all.
        result: The estimator's answer.
        small: The curve watched.
        large: The curve of the reference.
        converged: False where a trap says that it had not converged: then nothing is called out of
            reach.
        given: On which of their pruned networks, where not on all; or on what condition.
    """

    label: str
    reference: str
    target: float
    watched: int
    result: Estimate
    small: LearningCurve
    large: LearningCurve
    converged: bool = True
    given: str = ""

    @property
    def unreachable(self) -> bool:
        """Return whether no number of epochs can be named: more likely than not, none will do."""
        return self.result.reachable < LIKELY or self.result.extra_epochs.is_late

    @property
    def stretched(self) -> bool:
        """Return whether epochs are to be added to a whole schedule, like a cosine."""
        return self.result.lengthens == THE_SCHEDULE

    @property
    def never(self) -> bool:
        """Return whether the evidence says that more epochs at this LR never get there."""
        out = self.result.status is EstimateStatus.UNREACHABLE and self.result.reachable < UNLIKELY
        return self.unreachable and out and self.converged

    def sentence(self) -> str:
        """Return the estimate in words."""
        extra = self.result.extra_epochs
        goal = self.result.metric.called(self.target)
        aim = f"the {goal} of {self.reference}{self.given and f' {self.given}'}"
        why = f" {self.result.doubt}" if self.result.doubt else ""
        if self.never:
            return (
                f"{self.label} is not expected to reach {aim}, however long it is retrained.{why}"
            )
        if self.unreachable and not self.converged:
            cause = f"the trend is to level off {self.result.metric.behind} it"
            if self.result.status in BY_DECAYS:
                cause = f"{self.reference} itself gets there only by its decays"
            what = "a longer schedule takes" if self.stretched else "more first-stage epochs take"
            return (
                f"Whether {what} {self.label} to {aim} cannot be told: "
                f"{cause}, and {self.label} has not converged (see the traps)."
            )
        if self.unreachable:
            return (
                f"{self.label} may not reach {aim} (the chance is put at "
                f"{100 * self.result.reachable:.0f} %).{why}"
            )
        if self.watched < FEW:
            return (
                f"{self.label} needs more first-stage epochs to reach {aim}; how many cannot be "
                f"told from the {self.watched} that were watched: it takes {FEW}."
            )
        span = f"{extra.low:.0f} {'or more' if extra.is_open else f'to {extra.high:.0f}'}"
        missed = ""
        if extra.is_open and math.isfinite(extra.horizon):
            missed = f"; {extra.missed(more='epoch')}"
        needs = f"about {extra.median:.0f} more first-stage epochs"
        if self.stretched:
            needs = f"its whole schedule about {extra.median:.0f} epochs longer"
        line = f"{self.label} needs {needs} ({span}, 80 % interval{missed}) to reach {aim}"
        if self.result.status in BY_DECAYS:
            line += (
                f"; not to be relied on, as {self.reference} itself gets there only by its decays"
            )
        elif self.result.status is not EstimateStatus.OK:
            line += f"; not to be relied on ({self.result.status})"
        more = [self.result.beyond_lr_time, self.result.withheld]
        return " ".join([line + ".", *filter(None, more)])

    def as_dict(self) -> Json:
        """Return the fields for JSON; endless is null."""
        result = self.result
        return {
            "setting": self.label,
            "reference": self.reference,
            "target": self.target,
            "watched": self.watched,
            "sentence": self.sentence(),
            "extra_epochs": result.extra_epochs.to_json(),
            "first_passage": result.first_passage.to_json(),
            "reachable": result.reachable,
            "lr_time_bound": _finite(result.lr_time_bound),
            "status": str(result.status),
            "explanation": result.explanation,
        }


def _goes_on(longer: Setting, shorter: Setting, falling: Collection[str]) -> bool:
    """Say whether one setting is another with a longer first LR stage, or a longer cosine.

    `falling` are the labels of the settings whose LR falls all along.
    """
    if longer.lr != shorter.lr:
        return False
    if longer.label in falling and shorter.label in falling:
        return (last_epoch(longer.first) or 0) > (last_epoch(shorter.first) or 0)
    return (longer.first_stage or 0) > (shorter.first_stage or 0)


def _falls(item: Setting) -> bool:
    """Say whether a setting's LR falls all along, so that it has no first LR stage to watch."""
    whole = mean_curve(item)
    stage = None if whole is None else first_stage(whole)
    return whole is not None and stage is not None and is_scheduled(whole, stage)


def estimates(groups: Sequence[Setting], unconverged: Collection[str] = ()) -> list[GroupEstimate]:
    """Estimate the extra epochs of every setting that a larger LR beats on one pruned network.

    Each watches the mean over seeds of its first LR stage, or, where the LR falls all along as in a
    cosine, of all epochs; the target is the final accuracy of the
    best setting with a larger LR and the same optimizer settings, both on the pruned networks that
    the two share.

    Args:
        groups: The settings.
        unconverged: The labels of those that a trap says had not converged.
    """
    behind: list[tuple[float, Ground]] = []
    known = [item for item in groups if item.lr is not None and item.mean is not None]
    falling = {item.label for item in known if _falls(item)}
    for family in kin(known):
        for item in family:
            if any(_goes_on(other, item, falling) for other in family):
                continue  # the longer run is the evidence, and an estimate from less is none
            rivals = [
                ground
                for other in family
                if (other.lr or 0) > (item.lr or 0) and (ground := share([item, other])) is not None
            ]
            if not rivals or (
                (item.first_stage or 0) < FEWEST_EPOCHS and item.label not in falling
            ):
                continue
            ground = max(rivals, key=_ends_highest)
            own, best = ground.groups
            ahead = welch(best.qualities, own.qualities, among=len(family))
            sure = ahead.significant or untested(best.finals, own.finals)
            gap = best.metric.points(ahead.value, best.mean or 0.0)
            if best.first.epochs and gap >= LEAST and sure:
                behind.append((gap, ground))
    behind.sort(key=lambda part: -part[0])
    found = [_estimate(ground, unconverged) for _, ground in behind[:MOST]]
    return [estimate for estimate in found if estimate is not None]


def _ends_highest(ground: Ground) -> tuple[float, float]:
    other = ground.groups[-1]
    return other.quality, other.lr or 0.0


def _condition(ground: Ground) -> str:
    return "(if the pruned network is the same)" if ground.known is Known.UNKNOWN else ""


def _estimate(ground: Ground, unconverged: Collection[str]) -> GroupEstimate | None:
    item, best = ground.groups
    assert best.mean is not None
    stage = last_epoch(item.first) if _falls(item) else item.first_stage
    if stage is None:
        return None
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
    return GroupEstimate(
        *(item.label, best.label, best.mean, stage, result, small, large),
        converged=item.label not in unconverged,
        given=ground.partial or _condition(ground),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
