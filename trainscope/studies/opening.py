"""The place of a store (a file, a folder, a URL or a journal), and the queue that is there."""

from __future__ import annotations

import re
from pathlib import Path

from trainscope.errors import StudyError, TrainscopeError
from trainscope.foreign import reason
from trainscope.records import files
from trainscope.studies.database_queue import RdbQueue
from trainscope.studies.journal_queue import JournalQueue
from trainscope.studies.named import FILE, JOURNAL
from trainscope.studies.queues import SQLITE, Queue, steady


def file_of(place: str) -> Path | None:
    """Return the file of a store; None where it is a database elsewhere."""
    if place.startswith(JOURNAL):
        return Path(place.removeprefix(JOURNAL)).expanduser()
    if place.startswith(SQLITE):
        return Path(place.removeprefix(SQLITE))
    if re.match(r"[a-z][a-z0-9+]*://", place):
        return None
    path = Path(place).expanduser()
    return path / FILE if path.is_dir() or not path.suffix else path


def opened(place: str, file: Path | None, *, make: bool) -> Queue:
    """Open a storage.

    Raises:
        StudyError: It cannot be opened.
    """
    url = place if file is None else f"{SQLITE}{file}"

    def open_it() -> Queue:
        if file is not None and place.startswith(JOURNAL):
            return JournalQueue(file)
        queue = RdbQueue(url, make=make)
        queue.studies()
        return queue

    try:
        if file is not None and make:
            with files.refusing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
        return steady(open_it, 5 if make else 1)
    except TrainscopeError:
        raise
    except Exception as error:  # whatever a database, or its driver, raises
        where = re.sub(r"://[^/@]*@", "://...@", place)  # a password is not shown
        advice = (
            "" if file is None else "; name another place for the store, or move that file away"
        )
        raise StudyError(f"{where} cannot be opened as a store: {reason(error)}{advice}") from error
