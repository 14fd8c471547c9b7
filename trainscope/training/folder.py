"""The folder of one run: its frozen settings, its state after the last epoch, its results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainscope.errors import RecordError
from trainscope.records import Json, Run, RunStatus, files
from trainscope.records.json_text import parse
from trainscope.records.run import FILE_NAME
from trainscope.training.job import difference
from trainscope.training.state import STATE

CHECKPOINT, SETTINGS = "checkpoint.pt", "settings.json"
EPOCHS = "epoch-[0-9][0-9][0-9][0-9]*"
"""The folders that a stem keeps its pruning epochs in."""


def claim(folder: Path, frozen: Json) -> bool:
    """Take a folder for a run, or take it up again; return whether it is new.

    Raises:
        RecordError: The folder holds another run, or something else by those names.
    """
    settings = folder / SETTINGS
    if not settings.exists():
        taken = [n for n in (FILE_NAME, CHECKPOINT, STATE) if (folder / n).exists()]
        taken += [path.name for path in folder.glob(EPOCHS)]
        if taken:
            raise RecordError(
                f"{folder} already holds a {taken[0]} that no run of this kind wrote: "
                "give another folder with --output"
            )
        files.write_text(settings, json.dumps(frozen, indent=2, allow_nan=False) + "\n")
        return True
    try:
        old = parse(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{settings} is damaged: give another folder with --output") from error
    if not isinstance(old, dict) or "kind" not in old or "start" not in old:
        raise RecordError(
            f"{settings} is not a run's, but another program's: give another folder with --output"
        )
    differs = difference(old, json.loads(json.dumps(frozen)))
    if differs is not None:
        raise RecordError(
            f"{folder} holds another run ({differs}): give another folder with --output"
        )
    return False


@contextmanager
def held(folder: Path, frozen: Json, *, wait: bool = False) -> Iterator[None]:
    """Claim a folder and keep other processes out of it; a killed process lets go by itself.

    A run that raises before it has written anything takes its settings with it, and the folders
    that were made for it.

    Args:
        folder: As `claim` takes it.
        frozen: The settings of the run.
        wait: Wait for another process to end, rather than be refused.

    Raises:
        RecordError: The folder holds another run, or another process is at work in it.
    """
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is a file: give a folder with --output")
    with files.folder(folder):
        new, handle = _locked(folder, frozen, wait=wait)
        there = set(os.listdir(folder))
        with handle:
            try:
                yield
            except BaseException:
                if new and set(os.listdir(folder)) <= there:
                    (folder / SETTINGS).unlink()
                raise


def _locked(folder: Path, frozen: Json, *, wait: bool) -> tuple[bool, IO[bytes]]:
    """Return whether a run is new, and its settings, open and locked."""
    settings, new = folder / SETTINGS, False
    while True:
        new |= claim(folder, frozen)
        try:
            handle = settings.open("rb")
        except FileNotFoundError:  # a run that came to nothing took them with it
            continue
        except OSError as error:
            raise RecordError(f"{settings} cannot be read: {error.strerror}") from error
        try:
            files.lock(handle, wait=wait)
        except BlockingIOError as error:
            handle.close()
            raise RecordError(
                f"another process is at work in {folder}: wait for it, or give another folder "
                "with --output"
            ) from error
        except OSError:  # a file system without locks
            return new, handle
        if settings.exists() and os.path.samestat(os.fstat(handle.fileno()), settings.stat()):
            return new, handle
        handle.close()


def finished(folder: Path) -> Run | None:
    """Return the Run of a folder that is done, None where there is something left to do.

    Raises:
        RecordError: There is a record and it cannot be read.
    """
    if not (folder / FILE_NAME).exists():
        return None
    run = Run.load(folder)
    return None if run.status is RunStatus.INTERRUPTED else run
