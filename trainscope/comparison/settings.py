"""Runs of one setting: they differ in their seed alone."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from trainscope.comparison.facts import (
    final_value,
    last_epoch,
    method_of,
    pretraining_epochs,
    ratio_of,
    schedule_of,
    speedup_of,
)
from trainscope.comparison.setting_identity import (
    labels_of,
    pruning_key,
    schedule_key,
    settings_key,
)
from trainscope.comparison.spelling import one_spelling
from trainscope.records import Metric, Run, RunStatus

FIRST_EPOCHS = 5
"""So many are averaged for TA of schedules without a first LR stage, as `trainscope probe` does."""
SHORTEST_STAGE = 3
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")


@dataclass(frozen=True)
class Setting:
    """Runs of one setting.

    Attributes:
        label: A short name that no other group of the comparison has.
        runs: The runs, by seed.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """Return one run, to read what all of them share."""
        return self.runs[0]

    @property
    def metric(self) -> Metric:
        """Return what its runs are told by."""
        return self.first.metric

    @property
    def finals(self) -> list[float]:
        """Return the final values that are known, in the order of the runs."""
        found = [final_value(run) for run in self.runs]
        return [value for value in found if value is not None]

    @property
    def mean(self) -> float | None:
        """Return the mean final value, in the metric's unit; None where none is known."""
        return statistics.fmean(self.finals) if self.finals else None

    @property
    def qualities(self) -> list[float]:
        """Return the final values with the metric's sign: the larger the better."""
        return [self.metric.sign * value for value in self.finals]

    @property
    def quality(self) -> float:
        """Return the mean with the metric's sign, to rank by; -inf where none is known."""
        return -math.inf if self.mean is None else self.metric.sign * self.mean

    @property
    def spread(self) -> float | None:
        """Return the standard deviation of the final values over seeds.

        For one run it is None, unless it is a run card's mean whose deviation was published.
        """
        if len(self.finals) == 1 and self.first.source == "card":
            published = self.first.settings.get("spread")
            return None if published is None else float(published)
        return statistics.stdev(self.finals) if len(self.finals) > 1 else None

    @property
    def first_stage(self) -> int | None:
        """Return the epochs of the first LR stage as recorded; None without recorded epochs."""
        counts = Counter(run.first_stage for run in self.runs if len(run.epochs) > 1)
        return counts.most_common(1)[0][0] if counts else None

    def ta(self, epochs: int | None = None) -> tuple[float, float | None] | None:
        """Return TA: its mean and standard deviation over seeds, in the metric's unit.

        Args:
            epochs: N; by default the first LR stage.

        Returns:
            None where no value was recorded in those epochs, or no run came so far; no
            deviation for one run.
        """
        long = [run for run in self.runs if len(run.epochs) > 1]
        if epochs is not None:  # a run that ended before says nothing of so many
            long = [run for run in long if run.epochs[-1].epoch >= epochs]
        found = [run.trainability_accuracy(epochs) for run in long]
        known = [value for value in found if value is not None]
        if not known:
            return None
        return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None

    @property
    def lr(self) -> float | None:
        """Return the largest LR of the schedule: the first one, unless it warms up."""
        schedule = schedule_of(self.first)
        if schedule is not None:
            return max(stage.lr for stage in schedule.stages)
        return max((record.lr for record in self.first.epochs), default=None)

    @property
    def epochs(self) -> int | None:
        """Return the epochs done, the most of any run."""
        known = [done for done in map(last_epoch, self.runs) if done is not None]
        return max(known, default=None)

    @property
    def finished(self) -> bool:
        """Return whether its runs came to the end of their schedule."""
        return self.first.status is RunStatus.FINISHED

    @property
    def fate(self) -> str:
        """Return "diverged", "was interrupted" or "were interrupted"; "finished" for the others."""
        if self.first.status is not RunStatus.INTERRUPTED:
            return str(self.first.status)
        return f"{'was' if len(self.runs) == 1 else 'were'} interrupted"

    @property
    def setting(self) -> Hashable:
        """Return what it shares with the runs of its setting that came less far."""
        return _setting(self.first)

    @property
    def pruned_alike(self) -> Hashable:
        """Return what two groups share that were pruned in one way; None for a dense network.

        The metric is a part of it, as values of two metrics are never held against each other.

        Their base models may differ, or be unknown: `grounds.share` tells.
        """
        run = self.first
        if run.pruning is None:
            return None
        return run.metric, run.architecture, run.data, str(run.kind), pruning_key(run)


def shared_first_stage(groups: Iterable[Setting]) -> int | None:
    """Return N for TAs that are shown together: the shortest first LR stage of all.

    Stages under `SHORTEST_STAGE` epochs count only where there are no others: a schedule that falls
    at every epoch has no first stage to speak of. Where all do, as cosines, N is `FIRST_EPOCHS`, or
    the epochs of the shortest. Runs that did not finish do not count.
    """
    held = list(groups)
    ended = [item for item in held if item.finished] or held
    known = [item.first_stage for item in ended if item.first_stage is not None]
    stages = [stage for stage in known if stage >= SHORTEST_STAGE] or known
    if max(stages, default=0) == 1:
        lasts = [last_epoch(item.first) for item in ended if item.first_stage is not None]
        return min([FIRST_EPOCHS, *(last for last in lasts if last is not None)])
    return min(stages, default=None)


def group(runs: Iterable[Run]) -> list[Setting]:
    """Return the groups, in an order that reads well: by ratio, method, LR from large to small.

    Base models may differ by seed, as they do where every seed pretrains its own. Where one seed
    occurs with several base models, each base model is a setting of its own. Runs that diverged or
    were interrupted stand apart from those that finished.

    Args:
        runs: Any runs; copies of a recorded one are counted once. Rows of run cards are all
            counted: two that read alike are two results.
    """
    buckets: dict[Hashable, list[Run]] = {}
    for run in _distinct(one_spelling(runs)):
        buckets.setdefault(_key(run), []).append(run)
    split: dict[Hashable, list[Run]] = {}
    for key, held in buckets.items():
        seeds = [run.seed for run in held]
        apart = len({run.base for run in held}) > 1 and len(set(seeds)) < len(seeds)
        for run in held:
            split.setdefault((key, run.base if apart else ""), []).append(run)
    ordered = sorted(split.values(), key=lambda held: _order(held[0]))
    labels = labels_of([held[0] for held in ordered])
    return [
        Setting(label, tuple(sorted(held, key=lambda run: (run.seed is None, run.seed or 0))))
        for label, held in zip(labels, ordered, strict=True)
    ]


def _distinct(runs: Iterable[Run]) -> list[Run]:
    found: dict[Hashable, Run] = {}
    for place, run in enumerate(runs):
        row = place if run.source == "card" else None
        key = (_key(run), run.base, run.seed, run.epochs, final_value(run), row)
        found.setdefault(key, run)
    return list(found.values())


def _key(run: Run) -> Hashable:
    return _setting(run), str(run.status)


def _setting(run: Run) -> Hashable:
    return (
        *(run.metric, str(run.kind), run.architecture, run.data, pruning_key(run)),
        schedule_key(run),
        *(settings_key(run), pretraining_epochs(run)),
    )


def _order(run: Run) -> tuple[object, ...]:
    schedule = schedule_of(run)
    lr = max((s.lr for s in schedule.stages), default=0.0) if schedule else 0.0
    words = [natural(word or "") for word in (run.data, run.architecture, str(run.kind))]
    return (
        run.metric.label,
        tuple(words[:2]),
        ratio_of(run) or 0.0,
        speedup_of(run) or 0.0,
        (*words[2:], natural(method_of(run) or "")),
        -lr,
        run.status is not RunStatus.FINISHED,
        last_epoch(run) or 0,
        natural(settings_key(run)),
    )


def natural(text: str) -> tuple[str | float, ...]:
    """Return a key that sorts texts by the numbers in them: 2 before 10.

    >>> sorted(["10", "2", "x 1e-3", "x 5e-4"], key=natural)
    ['2', '10', 'x 5e-4', 'x 1e-3']
    """
    parts = _NUMBER.split(text)  # text, number, text, ..: like is compared with like
    return tuple(float(part) if k % 2 else part for k, part in enumerate(parts))
