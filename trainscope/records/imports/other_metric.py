"""Logs without an accuracy and a loss of a test: which well-known metric tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from trainscope.records.imports.metrics import KNOWN, known
from trainscope.records.imports.names import SPLITS, TRAIN, meaning, split_in, split_of
from trainscope.records.imports.text_file import lines
from trainscope.records.metric import Metric

MOST_LINES = 20_000
_TESTS = "|".join(word for word, split in SPLITS.items() if split != TRAIN)
_ERROR = r"err(?:or)?(?:[ _-]?rate|[-_@ ]?(?:top)?[-_@]?1)?"
_METRICS = "|".join([_ERROR, *(pattern for pattern, _ in KNOWN[:-1])])
_IN_LINE = re.compile(
    rf"(?:(?<![a-z])(?:{_TESTS})(?![a-z])[^\n]{{0,40}}?(?<![a-z])|^\s*\* )({_METRICS})"
    r"(?=\s*[:=]?\s*\d)",
    re.IGNORECASE,
)

_ANOTHER = re.compile(r"(?<![a-z])(min|max|best|top[-_@]?5|std)(?![a-z\d])|@5(?!\d)", re.IGNORECASE)
"""The best so far, and that of five guesses."""


def other_metric(names: Iterable[str], text: Path | None = None) -> tuple[str, Metric] | None:
    """Return the name and the metric that tell a log's test, None where none or several do.

    Args:
        names: What the log has.
        text: A text log, of which only names that mean a loss and the like were read: its lines are
            looked at.
    """
    tests = [n for n in names if meaning(n) is None and split_in(n) not in ("", TRAIN)]
    tests = [name for name in tests if _ANOTHER.search(name) is None]
    found = {name: metric for name in tests if (metric := known(name)) is not None}
    if not found and text is not None:
        for count, line in enumerate(lines(text, cut=True)):
            if count > MOST_LINES:
                break
            said = (match[1] for match in _IN_LINE.finditer(line))
            found |= {name: metric for name in said if (metric := known(name)) is not None}
    if len(found) != 1:
        return None
    name, metric = next(iter(found.items()))
    data, _, own = name.partition("/")  # that of a record which says its data beside it
    return (own if own and split_of(data) else name), metric
