"""The logs in a folder, each of which is a run."""

from __future__ import annotations

import re
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports import epoch_files, long_log, series
from trainscope.records.imports.log import choose_run
from trainscope.records.imports.tensorboard import event_files

NAMES = (
    *("metrics.csv", "trainer_state.json", "summary.csv", "results.csv", "log_finetune.txt"),
    *("scalars.json", "log.txt", "history.csv", "log.csv"),
)
"""Names that tools give their logs, the surest first."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".log", ".txt", ".json")
OWN = (
    *("run.json", "diagnosis.json", "requirements.txt", "hparams.json", "config.json", "args.json"),
    *("wandb-summary.json", "wandb-metadata.json"),
)
MOST = 20_000
"""Files and folders that are looked through."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def find_log(folder: Path, run: str | None) -> tuple[Path, str | None]:
    """Return the log that a folder holds, and the run to read of it if it is TensorBoard's.

    A log with a name that is known is taken before others; in the folder itself, before those below
    it. A Trainer's state stands in each checkpoint: the last one counts.

    Raises:
        RecordError: There is none, or there are several and none of them was named.
    """
    if long_log.is_run(folder) or (not event_files(folder) and series.is_folder(folder)):
        return folder, run
    own = _named([path for path in _sorted(folder) if path.is_file()])
    if own is not None and run is None:
        return own, None
    if epoch_files.is_folder(folder):
        if run is not None:
            raise RecordError(f"{folder} holds one run, a file an epoch: leave out --run {run}")
        return folder, None
    found: dict[str, Path] = {}
    below: dict[Path, list[Path]] = {}
    mlflow: list[Path] = []
    for count, path in enumerate(folder.rglob("*")):
        if count > MOST:
            raise RecordError(f"{folder} holds more than {MOST} files: name the log itself")
        if path.name == long_log.ABOUT and long_log.is_run(path.parent):
            mlflow.append(path.parent)
        if path.suffix in SUFFIXES and path.is_file() and path.name not in OWN:
            below.setdefault(path.parent, []).append(path)
    for home in sorted(mlflow):
        name = long_log.name_of(home)
        found[home.relative_to(folder).as_posix() if name in found else name] = home
    for home in () if mlflow else sorted(below, key=_order):
        log = _named(sorted(below[home]))
        if log is None:
            continue
        named = home.parent if _CHECKPOINT.fullmatch(home.name) else home
        found[named.relative_to(folder).as_posix()] = log
    if run is not None and run in found:
        return found[run], None
    if not found or (run is not None and event_files(folder)):
        if event_files(folder):
            return folder, run
        own = next((path for path in folder.rglob("*.wandb") if path.is_file()), None)
        if own is not None:
            return own, run
        found = {path.relative_to(folder).as_posix(): path for path in below.get(folder, ())}
    if not found:
        return folder, run
    return found[choose_run(str(folder), sorted(found), run)], None


def _named(files: list[Path]) -> Path | None:
    names = {path.name: path for path in files if path.stat().st_size}
    known = next((names[name] for name in NAMES if name in names), None)
    return known or next((path for path in files if path.name.endswith(".log.json")), None)


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise RecordError(f"{folder} cannot be read: {error.strerror}") from error


def _order(folder: Path) -> tuple[Path, int]:
    found = _CHECKPOINT.fullmatch(folder.name)
    return (folder.parent, int(found[1][:18])) if found else (folder, 0)
