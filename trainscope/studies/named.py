"""What a study's file says of itself and its store, read without the rest."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from trainscope.errors import StudyError

FILE = "study.db"
"""The store of a study that names none, beside its file."""
JOURNAL = "journal:"
"""How the place of Optuna's journal begins."""


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a study's file and what TOML makes of it.

    Raises:
        StudyError: It cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise StudyError(f"{path} cannot be read as a study: {why}; check the path") from error
    return text, parsed(text, path)


def parsed(text: str, path: Path) -> dict[str, Any]:
    """Return what TOML makes of a text.

    Raises:
        StudyError: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path} is no TOML: {error}") from error


def name_of(raw: dict[str, Any], path: Path) -> str:
    """Return the name of a study: its own, or that of its file."""
    return str(raw.get("name", path.stem))


def place_of(raw: dict[str, Any], path: Path) -> str:
    """Return the place of a study's store; a path in the file is relative to the file."""
    named = raw.get("store", FILE)
    if "://" in str(named):
        return str(named)
    prefix = JOURNAL if str(named).startswith(JOURNAL) else ""
    return f"{prefix}{path.parent / str(named).removeprefix(prefix)}"
