"""The cross-validated verdict: two methods, each under both retraining setups.

Wang et al. (2023), Sec. 5.2: a method that wins only under its own setup has not won; try each
method under the other's setup too. If one is ahead under both, it wins. If not, method and setup
interact, and the better cell of each counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from trainscope.comparison.significance import (
    LEVEL,
    Contrast,
    contrast,
    hedges_g,
    seeds_needed,
    welch,
)
from trainscope.records import Json, Metric
from trainscope.records.metric import ACCURACY

EACH = LEVEL / 2
"""The level of each of the two contrasts: together they keep to `LEVEL`."""


class CrossOutcome(StrEnum):
    """What two methods under two setups say."""

    FIRST = "the first wins"
    SECOND = "the second wins"
    INTERACT = "the two interact"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class CrossVerdict:
    """The outcome and what it rests on: by how much the first method is better than the second.

    Of accuracies that is first minus second, in points; where lower is better, second minus first.

    Attributes:
        outcome: Who wins.
        main: The difference averaged over both setups.
        interaction: The difference under the first setup minus that under the second.
        under: The difference under each setup.
        effect: The main difference in pooled standard deviations (Hedges' g, averaged over the
            setups); None without spread.
        better: For `INTERACT`: the better cell of each method, compared.
        sentence: All of it in words.
    """

    outcome: CrossOutcome
    main: Contrast
    interaction: Contrast
    under: tuple[Contrast, Contrast]
    effect: float | None
    better: Contrast | None
    sentence: str

    def as_dict(self) -> Json:
        """Return the fields for JSON; an endless interval is null."""
        return {
            "outcome": str(self.outcome),
            "sentence": self.sentence,
            "effect": self.effect,
            "main": _json(self.main),
            "interaction": _json(self.interaction),
            "under": [_json(part) for part in self.under],
            "better": None if self.better is None else _json(self.better),
        }


def cross_validate(
    first_own: Sequence[float],
    second_other: Sequence[float],
    first_other: Sequence[float],
    second_own: Sequence[float],
    *,
    methods: tuple[str, str] = ("A", "B"),
    setups: tuple[str, str] = ("a", "b"),
    metric: Metric = ACCURACY,
) -> CrossVerdict:
    """Decide between two methods from final values under two setups.

    Two contrasts are tested (Welch, two-sided): the difference averaged over the setups, and the
    interaction. Each is tested at 2.5 %, so that one of them is claimed without cause at most one
    time in twenty. The two interact if the interaction is significant and one method is not
    significantly ahead under both setups. Otherwise a method wins if it is ahead under both and its
    average lead is significant; else nothing is decided. benchmarks/verdict.py measures how often
    this is right.

    Args:
        first_own: The first method under the first setup, in the metric's unit, one value a seed.
        second_other: The second method under the first setup.
        first_other: The first method under the second setup.
        second_own: The second method under the second setup.
        methods: Their names.
        setups: Their names.
        metric: What the values are of.
    """
    cells = tuple(
        [metric.sign * value for value in cell]
        for cell in (first_own, second_other, first_other, second_own)
    )
    first_own, second_other, first_other, second_own = cells
    main = contrast(cells, (0.5, -0.5, 0.5, -0.5))
    interaction = contrast(cells, (1.0, -1.0, -1.0, 1.0))
    under = (welch(first_own, second_other), welch(first_other, second_own))
    effects = [hedges_g(first_own, second_other), hedges_g(first_other, second_own)]
    known = [effect for effect in effects if effect is not None]
    effect = statistics.fmean(known) if len(known) == 2 else None
    lead = min(under, key=lambda part: abs(part.value))
    same = under[0].value * under[1].value > 0
    clear = same and all(part.significant for part in under)
    better: Contrast | None = None
    outcome = CrossOutcome.UNDECIDED
    if interaction.p < EACH and not clear:
        outcome = CrossOutcome.INTERACT
        better = welch(
            max(first_own, first_other, key=statistics.fmean),
            max(second_other, second_own, key=statistics.fmean),
        )
    elif same and main.p < EACH:
        outcome = CrossOutcome.FIRST if lead.value > 0 else CrossOutcome.SECOND
    verdict = CrossVerdict(outcome, main, interaction, under, effect, better, "")
    return replace(verdict, sentence=_sentence(verdict, cells, methods, setups, metric))


def _sentence(
    verdict: CrossVerdict,
    cells: Sequence[Sequence[float]],
    methods: tuple[str, str],
    setups: tuple[str, str],
    metric: Metric,
) -> str:
    """Say a verdict that has no sentence yet."""
    outcome, main, better = verdict.outcome, verdict.main, verdict.better
    size = "" if verdict.effect is None else f", Hedges' g {abs(verdict.effect):.1f}"
    if outcome in (CrossOutcome.FIRST, CrossOutcome.SECOND):
        winner, loser = methods if outcome is CrossOutcome.FIRST else methods[::-1]
        return (
            f"{winner} wins: it is ahead of {loser} under both setups, by "
            f"{metric.gap(abs(main.value))} on average "
            f"({interval_text(main, metric, flip=outcome is CrossOutcome.SECOND)}{size})."
        )
    if outcome is CrossOutcome.INTERACT:
        assert better is not None
        ahead, behind = methods if better.value > 0 else methods[::-1]
        last = (
            f"by its better cell {ahead} is ahead of {behind} by {metric.gap(abs(better.value))} "
            f"({interval_text(better, metric, flip=better.value < 0)})"
            if better.significant
            else f"their better cells do not differ significantly ({interval_text(better, metric)})"
        )
        leads = " and ".join(
            _lead(part, methods, setup, metric)
            for part, setup in zip(verdict.under, setups, strict=True)
        )
        return (
            f"The two interact: {leads} (interaction p = {verdict.interaction.p:.2g}), so neither "
            f"method is better as such and the better cell counts: {last}."
        )
    if min(map(len, cells)) < 2:
        return f"Undecided between {methods[0]} and {methods[1]}: a test needs two seeds a cell."
    spread = math.sqrt(statistics.fmean(statistics.variance(cell) for cell in cells))
    wanted = seeds_needed(main.value, spread)
    more = f"; about {wanted} seeds a cell would show it" if wanted and wanted < 1000 else ""
    return (
        f"Undecided between {methods[0]} and {methods[1]}: the average difference is "
        f"{metric.gap(metric.sign * main.value, sign='+')} "
        f"({interval_text(main, metric, flip=metric.sign < 0)}){more}."
    )


def _lead(part: Contrast, methods: tuple[str, str], setup: str, metric: Metric) -> str:
    if not part.significant:
        apart = metric.gap(metric.sign * part.value, sign="+")
        return f"under {setup} they do not differ ({apart}, p = {part.p:.2g})"
    ahead = methods[0] if part.value > 0 else methods[1]
    return f"under {setup} {ahead} is ahead by {metric.gap(abs(part.value))}"


def interval_text(part: Contrast, metric: Metric = ACCURACY, *, flip: bool = False) -> str:
    """Return "95 % interval 0.3 to 1.2, p = 0.004"."""
    low, high = (-part.high, -part.low) if flip else (part.low, part.high)
    p = f"p = {part.p:.2g}" if part.p >= 1e-4 else "p < 0.0001"
    if not math.isfinite(low):
        return "one seed: no interval"
    ends = [metric.change(end, sign="+").split(" ")[0] for end in (low, high)]
    return f"95 % interval {ends[0]} to {ends[1]}, {p}"


def _json(part: Contrast) -> Json:
    low, high = (value if math.isfinite(value) else None for value in (part.low, part.high))
    return {"value": part.value, "low": low, "high": high, "p": part.p}
