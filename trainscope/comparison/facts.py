"""What must agree for a comparison to be fair: one fact a line, read from a Run.

A fact that is not known is None, and "unknown" is not "same": Wang et al. (2023), Sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache

from trainscope.errors import ScheduleError
from trainscope.records import Kind, Run
from trainscope.records.run import UNKNOWN
from trainscope.training.schedule import LRSchedule, from_rates, parse_schedule, write_lr

SCRATCH = (Kind.SCRATCH_E, Kind.SCRATCH_B, Kind.RANDOM_REINIT)
"""Kinds that inherit no weights from a base model."""
COMPRESSION_TOLERANCE = 0.05
"""Speedups (or FLOPs of one sample) within 5 % count as the same compression."""
BUDGET_TOLERANCE = 0.02
"""Training FLOPs within 2 % count as the same budget: epochs are whole."""


def last_epoch(run: Run) -> int | None:
    """Return the epochs that were done, or planned where only the result is known."""
    return run.epochs[-1].epoch if run.epochs else run.total


def final_accuracy(run: Run) -> float | None:
    """Return the accuracy of the last epoch, or the published one of a run card, percent."""
    if run.epochs:
        return run.final_accuracy
    reported = run.settings.get("accuracy") if run.source == "card" else None
    return float(reported) if reported is not None else None


def schedule_of(run: Run) -> LRSchedule | None:
    """Return the LR schedule as written, else as recorded where every epoch was; None if unknown.

    A schedule with one stage an epoch too many, or that cannot be read, is unknown.
    """
    if run.schedule is not None:
        total = run.total or (run.epochs[-1].epoch if run.epochs else None)
        return None if total is None else _parsed(run.schedule, total)
    rates = [record.lr for record in run.epochs]
    if not rates or run.epochs[-1].epoch != len(rates) or min(rates) <= 0:
        return None
    return from_rates(rates)


@cache
def _parsed(text: str, total: int) -> LRSchedule | None:
    try:
        return parse_schedule(text, total)
    except ScheduleError:
        return None


def total_epochs(run: Run) -> int | None:
    """Return the epochs of pretraining and retraining together."""
    done = last_epoch(run)
    if run.kind in SCRATCH or run.kind is Kind.TRAIN or done is None:
        return done
    before = pretraining_epochs(run)
    return None if before is None else before + done


def pretraining_epochs(run: Run) -> int | None:
    """Return the epochs that the base model was trained for."""
    if run.pretraining is not None and run.pretraining.epochs is not None:
        return run.pretraining.epochs
    return None if run.pruning is None else run.pruning.epoch


def total_flops(run: Run) -> int | None:
    """Return the multiply-adds of pretraining and retraining together."""
    if run.flops is None or run.kind in SCRATCH or run.kind is Kind.TRAIN:
        return run.flops
    before = None if run.pretraining is None else run.pretraining.flops
    return None if before is None else before + run.flops


def speedup_of(run: Run) -> float | None:
    """Return dense FLOPs / pruned FLOPs; 1 for a dense network."""
    if run.pruning is not None:
        return run.pruning.speedup
    return 1.0 if run.kind is Kind.TRAIN else None


def ratio_of(run: Run) -> float | None:
    """Return the uniform ratio; 0 for a dense network."""
    if run.pruning is not None:
        return run.pruning.ratio
    return 0.0 if run.kind is Kind.TRAIN else None


def method_of(run: Run) -> str | None:
    """Return the criterion by name; "dense" for a dense network."""
    if run.pruning is not None:
        return run.pruning.criterion
    return "dense" if run.kind is Kind.TRAIN else None


def _structure(run: Run) -> str | None:
    if run.pruning is not None:
        return run.pruning.structure
    return "dense" if run.kind is Kind.TRAIN else None


def _compression(run: Run) -> tuple[float | None, float | None, str | None] | None:
    found = (speedup_of(run), ratio_of(run), run.pruning.scope if run.pruning else None)
    return None if found[:2] == (None, None) else found


def _base(run: Run) -> str | None:
    if run.kind in SCRATCH:
        return "none: random weights"
    return None if run.base == UNKNOWN else run.base


def _plan(run: Run) -> tuple[str, int | None] | None:
    if run.pruning is None or run.pruning.plan is None:
        return None
    return run.pruning.plan, run.pruning.epoch


def _layers(run: Run) -> tuple[tuple[str, int, int], ...] | None:
    action = None if run.pruning is None else run.pruning.action
    if action is None:
        return None
    return tuple((layer.name, layer.before, layer.after) for layer in action.layers)


CORE_SETTINGS = ("optimizer", "momentum", "weight_decay", "batch_size")
OTHER_SETTINGS = ("label_smoothing", "clip", "augment", "precision")


WITHOUT_MOMENTUM = ("adam", "adamw")
"""Optimizers that have no setting of that name; one that a log carries along is not read."""


def missing_settings(run: Run) -> tuple[str, ...]:
    """Return the names of the optimizer settings that S3.2 needs and nobody stated."""
    return tuple(name for name in _core(run) if run.settings.get(name) is None)


def _core(run: Run) -> tuple[str, ...]:
    if str(run.settings.get("optimizer")).lower() in WITHOUT_MOMENTUM:
        return tuple(name for name in CORE_SETTINGS if name != "momentum")
    return CORE_SETTINGS


def _settings(run: Run) -> tuple[tuple[str, Hashable], ...] | None:
    if missing_settings(run):
        return None
    return tuple((n, run.settings.get(n)) for n in (*_core(run), *OTHER_SETTINGS))


def _schedule(run: Run) -> tuple[tuple[tuple[int, float], ...], int] | None:
    found = schedule_of(run)
    if found is None:
        return None
    return tuple((stage.start, stage.lr) for stage in found.stages), found.total


def near(values: Sequence[float], tolerance: float) -> bool:
    """Return whether the largest is at most a share `tolerance` above the smallest."""
    return max(values) <= min(values) * (1 + tolerance)


def same(values: Sequence[Hashable]) -> bool:
    """Return whether all values are equal."""
    return len(set(values)) == 1


def _same_compression(values: Sequence[tuple[float | None, float | None, str | None]]) -> bool:
    speedups = [speedup for speedup, _, _ in values if speedup is not None]
    if len(speedups) == len(values):
        return near(speedups, COMPRESSION_TOLERANCE)
    return same([(ratio, scope) for _, ratio, scope in values])


def is_digest(text: str) -> bool:
    """Return whether a base model is named by the SHA-256 of its weights."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def write_base(value: str) -> str:
    """Return a base model's name, or the first twelve digits of its digest."""
    return value[:12] if is_digest(value) else value


def _write_compression(value: tuple[float | None, float | None, str | None]) -> str:
    speedup, ratio, _ = value
    return f"ratio {ratio:g}" if speedup is None else f"{speedup:.2f}× speedup"


def _write_schedule(value: tuple[tuple[tuple[int, float], ...], int]) -> str:
    stages, _ = value
    text = ",".join(f"{start}:{write_lr(lr)}" for start, lr in stages)
    return text if len(text) <= 60 else text[:57] + "..."


def _write_settings(value: tuple[tuple[str, Hashable], ...]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {held}" for name, held in value if held is not None)


def _write_layers(value: tuple[tuple[str, int, int], ...]) -> str:
    return f"{len(value)} layers cut to {sum(after for _, _, after in value)} in all"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that must agree.

    Attributes:
        name: In the plural, as a sentence names it.
        read: From a Run to a value that can be hashed; None where it is not known.
        agree: Whether values are the same.
        write: A value in words.
    """

    name: str
    read: Callable[[Run], Hashable | None]
    agree: Callable[[Sequence[Hashable]], bool] = same
    write: Callable[[Hashable], str] = str


def _budget(values: Sequence[Hashable]) -> bool:
    return near([float(value) for value in values], BUDGET_TOLERANCE)  # type: ignore[arg-type]


FACTS = {
    "data": Fact("data sets", lambda run: run.data),
    "architecture": Fact("networks", lambda run: run.architecture),
    "structure": Fact("granularities", _structure),
    "compression": Fact("compressions", _compression, _same_compression, _write_compression),  # type: ignore[arg-type]
    "base": Fact("base models", _base, write=write_base),  # type: ignore[arg-type]
    "epochs": Fact("retraining epochs", last_epoch),
    "schedule": Fact("LR schedules", _schedule, write=_write_schedule),  # type: ignore[arg-type]
    "settings": Fact("optimizer settings", _settings, write=_write_settings),  # type: ignore[arg-type]
    "plan": Fact(
        "pruning schedules",
        _plan,
        write=lambda value: "{} after epoch {}".format(*value),  # type: ignore[misc]
    ),
    "layers": Fact("layer-wise ratios", _layers, write=_write_layers),  # type: ignore[arg-type]
    "total_epochs": Fact("epochs of the whole pipeline", total_epochs),
    "total_flops": Fact(
        "training FLOPs of the whole pipeline", total_flops, _budget, lambda v: f"{v:.3g}"
    ),
}
