"""What is said of a name that does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def unknown(name: str, names: Sequence[str], what: str) -> str:
    """Say that there is no such name, with the nearest one that there is."""
    near = get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(names)}"
    return f"'{name}' is no {what}: {hint}"
