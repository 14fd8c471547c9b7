"""Measurements in event files for TensorBoard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from trainscope.errors import ProbeError
from trainscope.probes.sinks.sink import About, numbers, reasons
from trainscope.records import Status, Taken

log = logging.getLogger(__name__)


class TensorBoard:
    """Event files for TensorBoard: each number as `PROBE/NAME`, its standard error as `.._se`.

    Args:
        target: The folder of the event files, or a `SummaryWriter` that is already open. By default
            the folder `tensorboard` in that of the training, or else where TensorBoard's own writer
            begins one, `runs/TIME_HOST`.

    Raises:
        ProbeError: The package tensorboard is not installed, or the folder cannot be made.
    """

    def __init__(self, target: Any = None) -> None:
        given = target is None or isinstance(target, str | Path)
        self._ours = given
        self._folder = str(target) if given and target is not None else None
        self._begun: tuple[Taken, set[str]] | None = None
        self._said: dict[str, str] = {}
        self.writer = None if given else target
        if given:
            _class()
        if self._folder is not None:
            try:
                self.writer = _class()(self._folder)
            except OSError as error:
                raise ProbeError(
                    f"no event files can be made in {self._folder}: {error}"
                ) from error

    def __str__(self) -> str:
        return f"TensorBoard in {self._folder or getattr(self.writer, 'log_dir', 'its folder')}"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: it makes event files of its own."""
        kept = None if self._ours else self.writer
        fresh: dict[str, Any] = {"_begun": None, "_said": {}, "writer": kept}
        return {"_folder": self._folder, "_ours": self._ours, **fresh}

    @property
    def run_id(self) -> str | None:
        """The folder, by which it is found again."""
        return self._folder if self._ours else None

    def begin(self, about: About) -> None:
        """Take the training's folder, where no other was given."""
        if self._ours and self._folder is None:
            if about.folder is not None:
                self._folder = str(about.folder / "tensorboard")
            else:
                self._folder = about.resume

    def write(self, taken: Taken) -> None:
        """Add the numbers that there are, and the texts that changed.

        Raises:
            OSError: The events cannot be written. Numbers that were are not written again.
        """
        if self._begun is None or self._begun[0] is not taken:
            self._begun = taken, set()
        done = self._begun[1]
        if self.writer is None:
            self.writer = _class()(self._folder)
            self._folder = str(self.writer.log_dir)
        try:
            for name, value in numbers(taken).items():
                if name not in done:
                    self.writer.add_scalar(name, value, int(taken.step))
                    if not self._ours:
                        done.add(name)
            for name, text in reasons(taken).items():
                if self._said.get(name, str(Status.OK)) != text and name not in done:
                    self.writer.add_text(name, text, int(taken.step))
                    self._said[name] = text
            if self._ours:
                self.writer.flush()  # its thread writes later, and would lose what it cannot
        except Exception:
            self._abandon()
            raise
        self._begun = None

    def close(self) -> None:
        """Close the writer if it was opened here, else flush it."""
        if self.writer is None:
            return
        if self._ours:
            self.writer.close()
        else:
            self.writer.flush()

    def seen(self, key: str) -> int | None:
        """Return the last step at which the folder has a number."""
        if self._folder is None or not Path(self._folder).is_dir():
            return None
        from trainscope.records.imports.event_file import scalars
        from trainscope.records.imports.tensorboard import event_files

        found = (scalars(file).get(key, ()) for file in event_files(Path(self._folder)))
        return max((step for pairs in found for step, _ in pairs), default=None)

    def _abandon(self) -> None:
        """Give up a writer of ours: its thread has ended and takes nothing any more."""
        if self._ours and self.writer is not None:
            writer, self.writer = self.writer, None
            try:
                writer.close()
            except Exception as error:
                log.debug("the event file in %s did not close: %s", self._folder, error)


def _class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ProbeError(
            "event files need the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter
