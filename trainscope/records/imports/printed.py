"""Lists that a script printed by their names: `val_acc: [60.0, 65.0]`, or a dictionary of such."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trainscope.errors import RecordError
from trainscope.records.imports.log import number

MOST_CHARACTERS = 2**23
FEWEST = 2
"""Numbers that make a list of epochs."""
_LIST = re.compile(
    r"(?P<name>[A-Za-z][\w ./@%-]{0,80}?)['\"]?\s{0,3}[:=]\s{0,3}(?:\w+(?:\.\w+)*\(|\()?"
    r"\[(?P<cells>[^\[\]{}:=]{0,4000000})\]"
)
_WRAPPED = re.compile(r"(?:\w+\.)*\w+\(([^()]*?)(?:,\s*(?:dtype|device)=[^()]*)?\)")
"""np.float64(0.5), tensor(0.5, device='cuda:0')"""


def lists_in(texts: Iterable[str], path: str) -> dict[str, list[float | None]]:
    """Return the lists of numbers in a text, two at least in each, by name.

    Of a name that stands several times, the last list counts if each goes on from the one before;
    others are of a line each, and no lists of epochs.

    Args:
        texts: The lines.
        path: Of the log, for messages.

    Raises:
        RecordError: NumPy left numbers out where it printed a list.
    """
    parts, size = [], 0
    for text in texts:
        size += len(text) + 1
        if size > MOST_CHARACTERS:
            break
        parts.append(text)
    found: dict[str, list[float | None]] = {}
    others: set[str] = set()
    for match in _LIST.finditer("\n".join(parts)):
        name = match["name"].strip().rpartition("\n")[2].strip()
        cells = _WRAPPED.sub(r"\1", match["cells"]) if "(" in match["cells"] else match["cells"]
        words = [word for word in re.split(r"[,\s]+", cells) if word]
        if "..." in words:
            raise RecordError(
                f"{path} has '{name[:60]}' with numbers left out (...): print it as a list, with "
                ".tolist()"
            )
        values = [number(word) for word in words]
        told = all(
            value is not None or word.lower() in ("nan", "none", "inf", "-inf")
            for word, value in zip(words, values, strict=True)
        )
        if not name or len(values) < FEWEST or not told:
            continue
        before = found.get(name, [])
        if values[: len(before)] != before:
            others.add(name)
        found[name] = values
    return {name: values for name, values in found.items() if name not in others}
