"""Writing a diagnosis to a folder: every file appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from trainscope.diagnosis import Outcome
from trainscope.errors import RecordError
from trainscope.networks import save_checkpoint
from trainscope.report.figures import write_figures


def check_folder(folder: Path) -> None:
    """Make sure, before any work, that a folder can be written to.

    Raises:
        RecordError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RecordError(
            f"nothing can be written to {folder} ({error.strerror}): choose another --output"
        ) from error


def write_outcome(outcome: Outcome, folder: Path, *, titles: bool = True) -> list[Path]:
    """Write diagnosis.json, pruned.pt and the figures.

    Everything is made in a folder beside and moved in at the end, the Diagnosis last.

    Args:
        outcome: What was measured.
        folder: Made where it is missing; files of the same names are replaced.
        titles: Whether the figures have titles; those in papers have captions.

    Returns:
        The paths written.

    Raises:
        RecordError: The folder cannot be written to.
    """
    check_folder(folder)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        save_checkpoint(making / "pruned.pt", outcome.pruned)
        write_figures(outcome.diagnosis, making, titles=titles)
        text = outcome.diagnosis.to_json() + "\n"
        (making / "diagnosis.json").write_text(text, encoding="utf-8")
        made = sorted(making.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
        for path in made:
            os.replace(path, folder / path.name)
    except OSError as error:
        raise RecordError(f"writing to {folder} failed: {error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return [folder / path.name for path in made]
