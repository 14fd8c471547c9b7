"""The folder of one run: its frozen settings, its state after the last epoch, its results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainscope.errors import CheckpointError, RecordError
from trainscope.records import EpochRecord, Json, Run, RunStatus, Taken
from trainscope.records.files import replacing, write_text
from trainscope.records.run import FILE_NAME
from trainscope.training.job import difference

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = "trainscope.training/1"
CHECKPOINT, STATE, SETTINGS = "checkpoint.pt", "state.pt", "settings.json"


@dataclass(frozen=True)
class State:
    """A training at the end of an epoch: all that it needs to go on.

    Attributes:
        epoch: Epochs done.
        network: The state dict of the network.
        engine: That of the stepper: optimizer and loss scaler.
        start_accuracy: Test accuracy before the first step, percent.
        records: What happened so far.
        measurements: What was measured so far.
    """

    epoch: int
    network: Mapping[str, Any]
    engine: Mapping[str, Any]
    start_accuracy: float | None
    records: tuple[EpochRecord, ...]
    measurements: tuple[Taken, ...]


def claim(folder: Path, frozen: Json) -> None:
    """Take a folder for a run, or take it up again.

    Raises:
        RecordError: The folder holds another run, or something else by those names.
    """
    settings = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is a file: give a folder with --output")
    if not settings.exists():
        taken = [n for n in (FILE_NAME, CHECKPOINT, STATE) if (folder / n).exists()]
        if taken:
            raise RecordError(
                f"{folder} already holds a {taken[0]} that no run of this kind wrote: "
                "give another folder with --output"
            )
        try:
            write_text(settings, json.dumps(frozen, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise RecordError(f"{folder} cannot be written: {error.strerror or error}") from error
        return
    try:
        old = json.loads(settings.read_text(encoding="utf-8"))
        differs = difference(old, json.loads(json.dumps(frozen)))
    except (OSError, ValueError, AttributeError) as error:
        raise RecordError(f"{settings} is damaged: remove {folder} or give another") from error
    if differs is not None:
        raise RecordError(
            f"{folder} holds another run ({differs}): give another folder with --output"
        )


@contextmanager
def held(folder: Path, frozen: Json, *, wait: bool = False) -> Iterator[None]:
    """Claim a folder and keep other processes out of it; a killed process lets go by itself.

    Args:
        folder: As `claim` takes it.
        frozen: The settings of the run.
        wait: Wait for another process to end, rather than be refused.

    Raises:
        RecordError: The folder holds another run, or another process is at work in it.
    """
    claim(folder, frozen)
    with (folder / SETTINGS).open("rb") as handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise RecordError(
                    f"another process is at work in {folder}: wait for it, or give another "
                    "folder with --output"
                ) from error
            except OSError:  # a file system without locks
                pass
        for part in folder.rglob(".*.part*"):  # of a write that was killed
            part.unlink(missing_ok=True)
        yield


def save_state(path: Path, state: State) -> None:
    """Write a state in one step."""
    whole = {
        "format": FORMAT,
        "epoch": state.epoch,
        "network": dict(state.network),
        "engine": dict(state.engine),
        "start_accuracy": state.start_accuracy,
        "records": json.dumps([record.to_json() for record in state.records]),
        "measurements": json.dumps([taken.to_json() for taken in state.measurements]),
    }
    with replacing(path) as part:
        torch.save(whole, part)


def load_state(path: Path) -> State | None:
    """Read a state; None where there is none.

    Raises:
        CheckpointError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']!r}, not '{FORMAT}'")
        return State(
            epoch=raw["epoch"],
            network=raw["network"],
            engine=raw["engine"],
            start_accuracy=raw["start_accuracy"],
            records=tuple(EpochRecord.from_json(r) for r in json.loads(raw["records"])),
            measurements=tuple(Taken.from_json(t) for t in json.loads(raw["measurements"])),
        )
    except Exception as error:  # whatever a damaged file makes torch raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read, so the run cannot be taken up ({first}): "
            "remove it to begin again"
        ) from error


def finished(folder: Path) -> Run | None:
    """Return the Run of a folder that is done, None where there is something left to do.

    Raises:
        RecordError: There is a record and it cannot be read.
    """
    if not (folder / FILE_NAME).exists():
        return None
    run = Run.load(folder)
    return None if run.status is RunStatus.INTERRUPTED else run
