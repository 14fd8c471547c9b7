"""Writing a diagnosis to a folder: all of its files appear, or none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from trainscope.diagnosis import Outcome
from trainscope.errors import RecordError
from trainscope.networks.readers import own
from trainscope.records import files
from trainscope.records.diagnosis import FAMILY, Diagnosis
from trainscope.report.figures import FIGURES, diagnosis_figures
from trainscope.report.page.diagnosis_page import diagnosis_page
from trainscope.report.pictures import write
from trainscope.sparsify.given import GIVEN

PRUNED, DIAGNOSIS, PAGE = "pruned.pt", "diagnosis.json", "diagnosis.html"
INSTEAD = "choose another --output"


@contextmanager
def output_folder(folder: Path, source: Path | None = None) -> Iterator[None]:
    """Make sure, before any work, that a diagnosis can be written to a folder.

    Args:
        folder: Made where it is missing; it goes again when the block raises and left it empty.
        source: The checkpoint that is measured, which must not be replaced.

    Raises:
        RecordError: It cannot be written, or files of other programs would be replaced.
    """
    with files.folder(folder, INSTEAD):
        with files.refusing(folder, INSTEAD), tempfile.TemporaryFile(dir=folder):
            pass
        _check_names(folder, source)
        yield


def write_outcome(outcome: Outcome, folder: Path, *, titles: bool = True) -> list[Path]:
    """Write diagnosis.json, its page, the figures, and pruned.pt where it was pruned here.

    All are written beside their places before the first takes its own; the Diagnosis comes last.

    Args:
        outcome: What was measured.
        folder: Made where it is missing; files of an earlier diagnosis are replaced.
        titles: Whether the figures have titles; those in papers have captions.

    Returns:
        The paths written.

    Raises:
        RecordError: The folder cannot be written to, or files of other programs are in the way.
    """
    paths = []
    with output_folder(folder), ExitStack() as whole:

        def add(name: str) -> files.Written:
            paths.append(folder / name)
            return whole.enter_context(files.replacing(paths[-1], over=_mark(name)))

        diagnosis = add(DIAGNOSIS)  # left last, and so named last
        diagnosis.write((outcome.diagnosis.to_json() + "\n").encode("utf-8", "backslashreplace"))
        action = outcome.diagnosis.action
        if outcome.pruned is not None and action is not None and action.structure != GIVEN:
            pruned = add(PRUNED)
            torch.save(own.write(outcome.pruned), pruned)
            pruned.flush()
        page = add(PAGE)
        page.write(diagnosis_page(outcome.diagnosis).encode("utf-8", "backslashreplace"))
        for name, figure in diagnosis_figures(outcome.diagnosis, titles=titles):
            file = add(name)
            write(figure, file)
            file.flush()
    return [*sorted(paths[1:]), paths[0]]


def write_diagnosis(diagnosis: Diagnosis, folder: Path) -> None:
    """Write diagnosis.json alone: what is known so far."""
    with files.replacing(folder / DIAGNOSIS, over=_mark(DIAGNOSIS)) as file:
        file.write((diagnosis.to_json() + "\n").encode("utf-8", "backslashreplace"))


def _check_names(folder: Path, source: Path | None) -> None:
    if source is not None and _same(source, folder / PRUNED):
        raise RecordError(
            f"the pruned network would be written over {source}, which is measured: give another "
            "folder with --output"
        )
    names = (PRUNED, DIAGNOSIS, PAGE, *(f"{name}.png" for name in FIGURES))
    found = next((name for name in names if (folder / name).exists()), None)
    if found is not None and not _holds_diagnosis(folder):
        raise RecordError(
            f"{folder} already holds a {found} that no diagnosis wrote: give another folder with "
            "--output"
        )
    for name in names:
        files.refuse_others(folder / name, _mark(name))


def _mark(name: str) -> str:
    """Return what a file of this name has near its beginning where a diagnosis wrote it."""
    return {PRUNED: own.KIND, DIAGNOSIS: FAMILY}.get(name, files.MADE)


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def _holds_diagnosis(folder: Path) -> bool:
    try:
        with (folder / DIAGNOSIS).open("rb") as file:
            return FAMILY.encode() in file.read(256)
    except OSError:
        return False
