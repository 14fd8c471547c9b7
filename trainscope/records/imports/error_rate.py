"""Logs that tell a test by its errors: which name is their rate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from trainscope.records.imports.metrics import metric_of
from trainscope.records.imports.names import SPLITS, TRAIN, split_in
from trainscope.records.imports.text_file import lines

ERROR = metric_of("error", None, None)
MOST_LINES = 20_000
_TESTS = "|".join(word for word, split in SPLITS.items() if split != TRAIN)
_RATE = r"err(?:or)?(?:[ _-]?rate|[-_@ ]?(?:top)?[-_@]?1)?"
_NAMED = re.compile(rf"(?:^|[^a-z]){_RATE}$", re.IGNORECASE)
_IN_LINE = re.compile(
    rf"(?:(?<![a-z])(?:{_TESTS})(?![a-z])[^\n]{{0,40}}?(?<![a-z])|^\s*\* )({_RATE})"
    r"(?=\s*[:=]?\s*\d)",
    re.IGNORECASE,
)


def error_rate(names: Iterable[str], text: Path | None = None) -> str:
    """Return the name of a log's test error, "" where none or more than one is it.

    Args:
        names: What the log has.
        text: A text log, of which only names that are known were read: its lines are looked at.
    """
    found = {name for name in names if split_in(name) not in ("", TRAIN) and _NAMED.search(name)}
    if not found and text is not None:
        for count, line in enumerate(lines(text, cut=True)):
            if count > MOST_LINES:
                break
            found |= {match[1] for match in _IN_LINE.finditer(line)}
    return found.pop() if len(found) == 1 else ""
