"""Runs of one setting that differ in their seed alone, and short names that tell settings apart."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainscope.records import Kind, Run, RunStatus
from trainscope.studies.facts import (
    final_accuracy,
    last_epoch,
    method_of,
    pretraining_epochs,
    ratio_of,
    schedule_of,
    speedup_of,
)
from trainscope.training.schedule import LRSchedule, write_lr

NOT_SETTINGS = ("seed", "accuracy", "reported")
"""Names in a Run's settings that do not tell settings apart."""


@dataclass(frozen=True)
class Group:
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
    def finals(self) -> list[float]:
        """Return the final accuracies that are known, percent, in the order of the runs."""
        found = [final_accuracy(run) for run in self.runs]
        return [accuracy for accuracy in found if accuracy is not None]

    @property
    def mean(self) -> float | None:
        """Return the mean final accuracy, percent; None where none is known."""
        return statistics.fmean(self.finals) if self.finals else None

    @property
    def spread(self) -> float | None:
        """Return the standard deviation of the final accuracies over seeds; None for one run."""
        return statistics.stdev(self.finals) if len(self.finals) > 1 else None

    @property
    def first_stage(self) -> int | None:
        """Return the epochs of the first LR stage as recorded; None without recorded epochs."""
        counts = Counter(run.first_stage for run in self.runs if len(run.epochs) > 1)
        return counts.most_common(1)[0][0] if counts else None

    def ta(self, epochs: int | None = None) -> tuple[float, float | None] | None:
        """Return TA: its mean and standard deviation over seeds, percent.

        Args:
            epochs: N; by default the first LR stage.

        Returns:
            None where no accuracy was recorded in those epochs; no deviation for one run.
        """
        found = [run.trainability_accuracy(epochs) for run in self.runs if len(run.epochs) > 1]
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
    def pruned_alike(self) -> Hashable:
        """Return what two groups share that retrain one pruned network; None where unknown."""
        run = self.first
        if run.pruning is None:
            return None
        return run.architecture, run.data, str(run.kind), _pruning_key(run)


def group(runs: Iterable[Run]) -> list[Group]:
    """Return the groups, in an order that reads well: by ratio, method, LR from large to small.

    Base models may differ by seed, as they do where every seed pretrains its own. Where one seed
    occurs with several base models, each base model is a setting of its own.

    Args:
        runs: Any runs; identical ones are counted once.
    """
    buckets: dict[Hashable, list[Run]] = {}
    for run in _distinct(runs):
        buckets.setdefault(_key(run), []).append(run)
    split: dict[Hashable, list[Run]] = {}
    for key, held in buckets.items():
        seeds = [run.seed for run in held]
        apart = len({run.base for run in held}) > 1 and len(set(seeds)) < len(seeds)
        for run in held:
            split.setdefault((key, run.base if apart else ""), []).append(run)
    ordered = sorted(split.values(), key=lambda held: _order(held[0]))
    labels = _labels([held[0] for held in ordered])
    return [
        Group(label, tuple(sorted(held, key=lambda run: (run.seed is None, run.seed or 0))))
        for label, held in zip(labels, ordered, strict=True)
    ]


def _distinct(runs: Iterable[Run]) -> list[Run]:
    found: dict[Hashable, Run] = {}
    for run in runs:
        key = (_key(run), run.base, run.seed, run.epochs, final_accuracy(run))
        found.setdefault(key, run)
    return list(found.values())


def _pruning_key(run: Run) -> Hashable:
    pruning = run.pruning
    if pruning is None:
        return None
    layers: Hashable = None
    if pruning.ratio is None and pruning.action is not None:
        layers = tuple((layer.name, layer.after) for layer in pruning.action.layers)
    return (
        pruning.structure,
        pruning.scope,
        pruning.criterion,
        pruning.ratio,
        None if pruning.speedup is None else round(pruning.speedup, 3),
        pruning.epoch,
        pruning.plan,
        layers,
    )


def _schedule_key(run: Run) -> Hashable:
    schedule = schedule_of(run)
    if schedule is not None:
        return tuple((stage.start, stage.lr) for stage in schedule.stages), schedule.total
    return run.schedule, run.total or last_epoch(run)


def _settings_key(run: Run) -> str:
    kept = {name: value for name, value in run.settings.items() if name not in NOT_SETTINGS}
    return json.dumps(kept, sort_keys=True, default=str)


def _key(run: Run) -> Hashable:
    return (
        *(str(run.kind), run.architecture, run.data, _pruning_key(run), _schedule_key(run)),
        *(_settings_key(run), pretraining_epochs(run), run.status is RunStatus.INTERRUPTED),
    )


def _order(run: Run) -> tuple[object, ...]:
    schedule = schedule_of(run)
    lr = max((s.lr for s in schedule.stages), default=0.0) if schedule else 0.0
    words = (run.data, run.architecture, str(run.kind), method_of(run))
    return (
        tuple(word or "" for word in words[:2]),
        ratio_of(run) or 0.0,
        speedup_of(run) or 0.0,
        tuple(word or "" for word in words[2:]),
        -lr,
        last_epoch(run) or 0,
        _settings_key(run),
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Write only what tells the groups apart, each part in its shortest form that does."""
    parts = [[""] * len(runs)]
    for write in (
        lambda run: run.data or "data unknown",
        lambda run: run.architecture or "network unknown",
        _kind,
        lambda run: method_of(run) or "method unknown",
        _granularity,
        _compression,
        lambda run: "" if pretraining_epochs(run) is None else f"P{pretraining_epochs(run)}",
    ):
        written = [write(run) for run in runs]
        if len(set(written)) > 1:
            parts.append(written)
    parts.append(_schedules(runs))
    parts += _changed_settings(runs)
    labels = [" · ".join(part for part in texts if part) for texts in zip(*parts, strict=True)]
    labels = [label or _fallback(run) for label, run in zip(labels, runs, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} · base {run.base[:8]}" for label, run in zip(labels, runs, strict=True)]
    seen: Counter[str] = Counter()
    for index, label in enumerate(labels):
        seen[label] += 1
        labels[index] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return labels


def _kind(run: Run) -> str:
    if run.status is RunStatus.INTERRUPTED:
        return f"{run.kind} (interrupted)"
    return "" if run.kind is Kind.RETRAIN else str(run.kind)


def _granularity(run: Run) -> str:
    if run.pruning is None:
        return ""
    return " ".join(word for word in (run.pruning.structure, run.pruning.scope) if word)


def _compression(run: Run) -> str:
    ratio, speedup = ratio_of(run), speedup_of(run)
    if ratio is not None:
        return "dense" if ratio == 0 else f"ratio {ratio:g}"
    return "compression unknown" if speedup is None else f"{speedup:.2f}×"


def _fallback(run: Run) -> str:
    return f"{run.architecture or 'run'} {_compression(run)}".strip()


def _changed_settings(runs: Sequence[Run]) -> list[list[str]]:
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in NOT_SETTINGS)
    parts = []
    for name in names:
        held = [run.settings.get(name) for run in runs]
        if len({json.dumps(value, default=str) for value in held if value is not None}) > 1:
            words = name.replace("_", " ")
            parts.append(["" if value is None else f"{words} {value}" for value in held])
    return parts


def _schedules(runs: Sequence[Run]) -> list[str]:
    """Write the schedules in the shortest of four ways that tells them apart."""
    keys = [_schedule_key(run) for run in runs]
    schedules = [schedule_of(run) for run in runs]
    if len(set(keys)) == 1 and len(runs) > 1:
        return [""] * len(runs)
    ways: list[Callable[[int], str]] = [
        lambda i: _first(schedules[i]),
        lambda i: _first(schedules[i]) + _longer(schedules[i], schedules),
        lambda i: f"{_first(schedules[i])}, {last_epoch(runs[i])} epochs",
        lambda i: f"{schedules[i]}, {last_epoch(runs[i])} epochs",
    ]
    for way in ways:
        written = [way(i) for i in range(len(runs))]
        told = {(text, key) for text, key in zip(written, keys, strict=True)}
        if len({text for text, _ in told}) == len(told):
            return written
    return written


def _first(schedule: LRSchedule | None) -> str:
    return "LR ?" if schedule is None else f"LR {write_lr(max(s.lr for s in schedule.stages))}"


def _longer(schedule: LRSchedule | None, others: Sequence[LRSchedule | None]) -> str:
    """Return " (+60)" for a schedule that is another one with its first stage lengthened."""
    extra = 0
    for other in others:
        if schedule is not None and other is not None:
            extra = max(extra, extra_epochs(schedule, other) or 0)
    return f" (+{extra})" if extra else ""


def extra_epochs(longer: LRSchedule, shorter: LRSchedule) -> int | None:
    """Return by how much a first LR stage was lengthened, all else being the same; else None."""
    extra = longer.total - shorter.total
    if extra <= 0 or [s.lr for s in longer.stages] != [s.lr for s in shorter.stages]:
        return None
    moved = [a.start - b.start for a, b in zip(longer.stages, shorter.stages, strict=True)]
    held = next(
        (k for k, (a, b) in enumerate(pairwise(shorter.stages), 1) if b.lr < a.lr), len(moved)
    )
    return extra if moved == [0] * held + [extra] * (len(moved) - held) else None
