"""The state of a training after an epoch, as a file that only its own run takes up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainscope.errors import CheckpointError, TrainscopeError
from trainscope.networks.readers.container import load
from trainscope.records import EpochRecord, Taken
from trainscope.records.files import replacing
from trainscope.records.metric import ACCURACY, Metric

FORMAT = "trainscope.training/3"
EARLIER = "trainscope.training/2"  # of accuracies alone
STATE = "state.pt"


@dataclass(frozen=True)
class State:
    """A training at the end of an epoch: all that it needs to go on.

    Attributes:
        key: The run it is of, as `key_of` names it.
        epoch: Epochs done.
        network: The state dict of the network.
        engine: That of the stepper: optimizer and loss scaler.
        start_metric: What the test measured before the first step, in the metric's unit.
        records: What happened so far.
        measurements: What was measured so far.
        metric: What the test measures.
    """

    key: str
    epoch: int
    network: Mapping[str, Any]
    engine: Mapping[str, Any]
    start_metric: float | None
    records: tuple[EpochRecord, ...]
    measurements: tuple[Taken, ...]
    metric: Metric = ACCURACY


def save_state(path: Path, state: State) -> None:
    """Write a state in one step.

    Raises:
        RecordError: It cannot be written.
    """
    whole = {
        "format": FORMAT,
        "key": state.key,
        "epoch": state.epoch,
        "network": dict(state.network),
        "engine": dict(state.engine),
        "start_metric": state.start_metric,
        "metric": state.metric.to_json(),
        "records": json.dumps([record.to_json() for record in state.records]),
        "measurements": json.dumps([taken.to_json() for taken in state.measurements]),
    }
    with replacing(path) as file:
        torch.save({**whole, "digest": _digest(whole)}, file)


def load_state(path: Path, key: str | None = None) -> State | None:
    """Read a state; None where there is none.

    Args:
        path: Its file.
        key: The run that it must be of; by default any.

    Raises:
        CheckpointError: The file is damaged, was changed, or is another run's.
    """
    if not path.exists():
        return None
    try:
        return _checked(load(path).objects, key)
    except Exception as error:  # whatever a damaged file makes torch raise
        known = isinstance(error, TrainscopeError)
        reason = str(error) if known else f"it is damaged: {type(error).__name__}"
        raise CheckpointError(
            f"{path} cannot be read, so the run cannot be taken up ({reason}): "
            "remove it to begin again"
        ) from error


def _checked(raw: Any, key: str | None) -> State:
    """Return a state as it was written, by its digest: no number in it needs to be checked."""
    found = raw.get("format") if isinstance(raw, Mapping) else None
    if found not in (FORMAT, EARLIER):
        earlier = str(found).startswith(FORMAT.partition("/")[0])
        raise CheckpointError(f"it is {'an earlier trainscope' if earlier else 'no training'}'s")
    if raw["digest"] != _digest({name: part for name, part in raw.items() if name != "digest"}):
        raise CheckpointError("it was changed since it was written")
    if key not in (None, raw["key"]):
        raise CheckpointError("it is another run's")
    metric = ACCURACY if found == EARLIER else Metric.from_json(raw["metric"])
    return State(
        key=raw["key"],
        epoch=raw["epoch"],
        network=raw["network"],
        engine=raw["engine"],
        start_metric=raw["start_accuracy" if found == EARLIER else "start_metric"],
        records=tuple(EpochRecord.from_json(r, metric) for r in json.loads(raw["records"])),
        metric=metric,
        measurements=tuple(Taken.from_json(t) for t in json.loads(raw["measurements"])),
    )


def _digest(value: object) -> str:
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: object) -> None:
    """Add a value to a digest: tensors, plain values, and containers of them, in their order."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        hasher.update(f"tensor|{flat.dtype}|{tuple(flat.shape)}|".encode())
        hasher.update(flat.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        hasher.update(f"map|{len(value)}|".encode())
        for name, part in value.items():
            hasher.update(f"{name!r}|".encode())
            _feed(hasher, part)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        hasher.update(f"row|{len(value)}|".encode())
        for part in value:
            _feed(hasher, part)
    else:
        hasher.update(f"{value!r}|".encode("utf-8", "backslashreplace"))
