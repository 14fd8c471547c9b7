"""What tells settings apart: keys to group runs by, and the short names of the groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

from trainscope.comparison.facts import (
    last_epoch,
    method_of,
    pretraining_epochs,
    ratio_of,
    schedule_of,
    speedup_of,
)
from trainscope.comparison.optimizer_settings import NOT_SETTINGS, WORDED, stated
from trainscope.comparison.pipelines import stage_epochs, stage_schedule
from trainscope.records import Kind, Run, RunStatus
from trainscope.records.text import count_of
from trainscope.training.schedule import LRSchedule, write_lr


def pruning_key(run: Run) -> Hashable:
    """Return what was pruned and how, without the action's own seed; None for a dense network."""
    pruning = run.pruning
    if pruning is None:
        return None
    layers: Hashable = None
    parts = None
    if pruning.action is not None:
        parts = (pruning.action.heads, pruning.action.blocks)
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
        stage_epochs(run),
        stage_schedule(run),
        layers,
        parts if parts != (None, None) else None,
    )


def schedule_key(run: Run) -> Hashable:
    """Return the LR schedule, however it is written, and its epochs."""
    schedule = schedule_of(run)
    if schedule is not None:
        return tuple((stage.start, stage.lr) for stage in schedule.stages), schedule.total
    return run.schedule, run.total or last_epoch(run)


def settings_key(run: Run) -> str:
    """Return the optimizer settings."""
    return json.dumps(stated(run), sort_keys=True, default=str)


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


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Write only what tells the groups apart, each part in its shortest form that does.

    Where schedules are not known, rows of a table are called by method and compression, if those
    tell enough.
    """
    if None in map(schedule_of, runs) and (rows := _rows(runs)):
        return rows
    metrics = {run.metric for run in runs}
    by_name = len({metric.name for metric in metrics}) == len(metrics)
    parts, kinds = [[""] * len(runs)], [_kind(run) for run in runs]
    for write in (
        lambda run: run.metric.name if by_name else run.metric.label,
        lambda run: run.data or "data unknown",
        lambda run: run.architecture or "network unknown",
        _kind,
        lambda run: _of_pruned(run, method_of(run) or "method unknown"),
        _granularity,
        lambda run: _of_pruned(run, _compression(run)),
        lambda run: _of_pruned(run, _pruning_epoch(run)),
        lambda run: _of_pruned(run, _plan(run)),
        lambda run: _of_pruned(run, _stage(run)),
    ):
        written = [write(run) for run in runs]
        # What every pruned network shares tells nothing, though a dense one has none of it.
        if write is _kind:
            parts.append(kinds)
        elif len({text for text in written if text}) > 1:
            parts.append(written)
    parts.append(_schedules(runs))
    parts += _changed_settings(runs)
    if len(runs) > 1 and not any(text for part in parts for text in part if part is not kinds):
        parts.append([_first(schedule_of(run)) for run in runs])  # some did not finish: no more
    labels = [" · ".join(part for part in texts if part) for texts in zip(*parts, strict=True)]
    labels = [label or _fallback(run) for label, run in zip(labels, runs, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} · base {run.base[:8]}" for label, run in zip(labels, runs, strict=True)]
    seen: Counter[str] = Counter()
    for index, label in enumerate(labels):
        seen[label] += 1
        labels[index] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return labels


def _rows(runs: Sequence[Run]) -> list[str]:
    """Name runs by their methods, which differ, and compressions; [] where that is not enough."""
    methods = [_of_pruned(run, method_of(run) or "") for run in runs]
    if not all(methods) or len(set(methods)) == 1:
        return []
    for more in (lambda run: "", _size):
        parts = [(_kind(run), method, more(run)) for run, method in zip(runs, methods, strict=True)]
        if len(set(parts)) == len(runs):
            return [" · ".join(word for word in part if word) for part in parts]
    return []


def _size(run: Run) -> str:
    return "" if ratio_of(run) is None and speedup_of(run) is None else _compression(run)


def _of_pruned(run: Run, text: str) -> str:
    return "" if run.kind is Kind.TRAIN else text


def _pruning_epoch(run: Run) -> str:
    epochs = pretraining_epochs(run)
    return "" if epochs is None else f"P{epochs}"


def _plan(run: Run) -> str:
    return "" if run.pruning is None else run.pruning.plan or ""


def _stage(run: Run) -> str:
    epochs = stage_epochs(run)
    return "" if epochs is None else f"{count_of(epochs, 'epoch')} of pruning"


def _kind(run: Run) -> str:
    name = {Kind.RETRAIN: "", Kind.TRAIN: "dense"}.get(run.kind, str(run.kind))
    cut = "" if run.status is RunStatus.FINISHED else str(run.status)
    return " ".join(word for word in (name, cut) if word)


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
        several = len({json.dumps(value, default=str) for value in held if value is not None}) > 1
        if several or (name == "lora_rank" and None in held):  # the others trained the weights
            words = "" if name == WORDED else f"{name.replace('_', ' ').replace('lora', 'LoRA')} "
            other = "all weights" if name == "lora_rank" else ""
            parts.append([other if value is None else f"{words}{value}" for value in held])
    return parts


def _schedules(runs: Sequence[Run]) -> list[str]:
    """Write the schedules in the shortest of five ways that tells them apart."""
    keys = [schedule_key(run) for run in runs]
    schedules = [schedule_of(run) for run in runs]
    if len(set(keys)) == 1 and len(runs) > 1:
        return [""] * len(runs)
    ways: list[Callable[[int], str]] = [
        lambda i: _first(schedules[i]),
        lambda i: _first(schedules[i]) + _longer(schedules[i], schedules),
        lambda i: f"{_first(schedules[i])}, {_epochs(runs[i])}",
        lambda i: f"{_ends(schedules[i])}, {_epochs(runs[i])}",
        lambda i: f"{schedules[i]}, {_epochs(runs[i])}",
    ]
    for way in ways:
        written = [way(i) for i in range(len(runs))]
        told = {(text, key) for text, key in zip(written, keys, strict=True)}
        if len({text for text, _ in told}) == len(told):
            return written
    return written


def _epochs(run: Run) -> str:
    done = last_epoch(run)
    return count_of(done, "epoch")


def _first(schedule: LRSchedule | None) -> str:
    return "LR ?" if schedule is None else f"LR {write_lr(max(s.lr for s in schedule.stages))}"


def _ends(schedule: LRSchedule | None) -> str:
    """Return "LR 1e-5 → 1e-2 → 1e-4": the first, the largest and the last LR."""
    if schedule is None:
        return "LR ?"
    rates = [stage.lr for stage in schedule.stages]
    told = [rates[0], max(rates), rates[-1]]
    return "LR " + " → ".join(write_lr(float(f"{lr:.2g}")) for lr in dict.fromkeys(told))


def _longer(schedule: LRSchedule | None, others: Sequence[LRSchedule | None]) -> str:
    """Return " (+60)" for a schedule that is another one with its first stage lengthened."""
    extra = 0
    for other in others:
        if schedule is not None and other is not None:
            extra = max(extra, extra_epochs(schedule, other) or 0)
    return f" (+{extra})" if extra else ""
