"""Options of a diagnosis, read and checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch

from trainscope.errors import ActionError, ProbeError, TaskError
from trainscope.probes import Probe, find
from trainscope.sparsify import Action
from trainscope.task import FromLoss, Task, as_task
from trainscope.training.settings import Settings

DTYPES = ("float32", "bfloat16", "float64")
"""What networks are measured in; float16 loses small derivatives to underflow."""

MAX_SEED = 2**63 - 2
"""The largest seed: torch takes up to 2^63 - 1, and the next one is used too."""

RETRAIN_LRS = (1e-2, 1e-3)
"""LRs that retraining is tried at: the larger one is what the smaller one is held against."""


def check_action(ratio: float | None, action: Action | None, after: object) -> None:
    """Refuse more than one description of what is done to the network.

    Raises:
        ActionError: There is more than one.
    """
    named = {"ratio": ratio, "action": action, "after": after}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ActionError(
            f"{' and '.join(given)} are given together, and each says what is done to the network: "
            "give one of them"
        )


def as_probe(probe: str | Probe, retraining: Mapping[str, Any]) -> Probe:
    """Return a probe by its name, those that are about retraining with what is asked of it.

    Raises:
        ProbeError: It is no probe, or none has that name.
    """
    if not isinstance(probe, str):
        _check_probe(probe)
        return probe
    kind: Callable[..., Probe] = find(probe)
    if probe == "trainability_accuracy":
        return kind(**retraining)
    return kind(settings=retraining.get("settings")) if probe == "curvature" else kind()


def _check_probe(probe: object) -> None:
    """Refuse what is no probe, as a class of probes.

    Raises:
        ProbeError: It is such.
    """
    if isinstance(probe, type):
        raise ProbeError(f"{probe.__name__} is a class: give one of it, as {probe.__name__}()")
    if not isinstance(probe, Probe):
        kind = type(probe).__name__
        raise ProbeError(f"{kind} is no probe: it lacks name, needs, measure or estimate")


def as_dtype(asked: str | torch.dtype | None) -> torch.dtype | None:
    """Return the dtype to measure in.

    Raises:
        ProbeError: Nothing is measured in it.
    """
    if asked is None:
        return None
    name = str(asked).removeprefix("torch.")
    if name not in DTYPES:
        raise ProbeError(
            f"'{name}' is no dtype that a network is measured in: give {', '.join(DTYPES[:-1])} or "
            f"{DTYPES[-1]}"
        )
    found: torch.dtype = getattr(torch, name)
    return found


def as_settings(optimizer: str | Settings) -> Settings:
    """Return the settings of an optimizer.

    Raises:
        ScheduleError: There is no optimizer of that name.
    """
    if isinstance(optimizer, Settings):
        return optimizer
    return Settings(optimizer=optimizer)  # type: ignore[arg-type]  # checked there


def chosen_task(
    task: str | Task | None,
    loss: Callable[..., Any] | None,
    metric: Callable[..., Any] | None,
    better: str,
) -> Task | None:
    """Return the task that is asked for; None where nothing is.

    Raises:
        TaskError: There are two, it is none, or there is a metric without a loss.
    """
    if loss is not None:
        if task is not None:
            raise TaskError("task and loss are given together, and each is what to do: give one")
        return FromLoss(loss, metric, better=better)
    if metric is not None:
        raise TaskError("a metric is given without a loss: give both, or a task with a metric")
    return None if task is None else as_task(task)


def check(probes: Sequence[Probe], samples: int | None, batch_size: int, seed: int) -> None:
    """Refuse options that no measurement can be made with.

    Raises:
        ProbeError: One of them; the message says which.
    """
    names = [probe.name for probe in probes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProbeError(f"the probe '{twice}' is asked for twice; measure once for each setting")
    whole: dict[str, object] = {"samples": samples, "batch_size": batch_size, "seed": seed}
    for what, count in whole.items():
        if count is not None and not isinstance(count, Integral):
            raise ProbeError(f"{what} is a whole number, not {count!r}")
    if samples is not None and samples < 2:
        raise ProbeError(f"{samples} samples are too few; give at least 2")
    if batch_size < 1:
        raise ProbeError(f"a batch size of {batch_size} holds no sample; give at least 1")
    if not 0 <= seed <= MAX_SEED:
        raise ProbeError(f"the seed {seed} is not from 0 to {MAX_SEED}; give one that is")
