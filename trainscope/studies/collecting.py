"""Collecting garbage: folders of runs that no study of a store names any more."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainscope.errors import TrainscopeError
from trainscope.records import files
from trainscope.studies.before import SHARED, STAGE, STEM, shared_folder
from trainscope.studies.executing import spec_in
from trainscope.studies.plain import KEY
from trainscope.studies.queues import SPEC
from trainscope.studies.spec import RunSpec
from trainscope.studies.store import Store
from trainscope.training.folder import SETTINGS

OURS = (
    *("spec.json", "start.json", "settings.json", "run.json", "checkpoint.pt", "state.pt"),
    "stage.json",
    "until-*.pt",
    "epoch-[0-9]*",
    f"{SHARED}*.json",
    ".*.part",
)
"""All that a study writes into a folder of its own."""
_LOOSE = (f"{SHARED}*.json", ".*.part")
"""What lies in the folder of a base model from a file."""


@dataclass(frozen=True)
class Garbage:
    """A folder that can go.

    Attributes:
        folder: It.
        size: Bytes in it.
    """

    folder: Path
    size: int


def garbage(store: Store) -> list[Garbage]:
    """Return the folders that studies wrote and that no study of the store names.

    A folder stays that holds anything else, that another process is at work in, or whose name is
    not its spec's. What a run of a study stands on, stems and other runs, is named by it.

    Raises:
        TrainscopeError: A study of the store cannot be read, so that nothing is known of its runs.
    """
    named: set[str] = set()
    folders: set[Path] = set()
    for name in store.studies:
        folders.add(store.folder_of(name))
        for entry in store.entries(name, (SPEC,)):
            named |= _needed(RunSpec.from_dict(entry.attrs[SPEC]))
    found = []
    for folder in sorted(folders):
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        left = [path for path in there if path.name not in named]
        found += [Garbage(p, _size(p)) for p in left if _is_ours(p) and not _busy(p)]
    return found


def remove(each: Garbage) -> None:
    """Remove one of them.

    Raises:
        OSError: The system does not let it.
    """
    shutil.rmtree(each.folder)


def _needed(spec: RunSpec) -> set[str]:
    """Return the names of the folders of a run and of all that it stands on."""
    names = {spec.key}
    if spec.base is not None:
        names.add(shared_folder(spec))
    if isinstance(spec.base, RunSpec):
        names |= _needed(spec.base)
    if spec.over is not None:
        names.add(f"{STAGE}{spec.stage.key}")
    return names


def _is_ours(path: Path) -> bool:
    """Tell whether a study wrote a folder, and nothing else is in it."""
    if path.is_symlink() or not path.is_dir():
        return False
    if re.fullmatch(rf"{SHARED}[0-9a-f]{{{KEY}}}", path.name):
        loose = list(path.iterdir())
        return bool(loose) and all(any(each.match(p) for p in _LOOSE) for each in loose)
    try:
        spec = spec_in(path)
        key = None if spec is None else spec.key
    except TrainscopeError:
        return False
    if key is None or path.name not in (key, f"{STEM}{key}", f"{STAGE}{key}"):
        return False
    inside = [*path.iterdir(), *path.glob("epoch-[0-9]*/*")]
    return all(any(each.match(pattern) for pattern in OURS) for each in inside)


def _busy(path: Path) -> bool:
    """Tell whether a process is at work in a folder."""
    settings = path / SETTINGS
    handle = os.open(settings if settings.is_file() else path, os.O_RDONLY)
    try:
        files.lock(handle, wait=False)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _size(path: Path) -> int:
    sizes = 0
    for top, _, names in os.walk(path):
        sizes += sum((Path(top) / name).lstat().st_size for name in names)
    return sizes
