"""The presets by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from trainscope.errors import StudyError
from trainscope.studies.named import parsed
from trainscope.studies.unknown import unknown

PREFIX = "preset:"
SMALL = "-small"
"""The end of the name of a small twin's file."""
STORES = Path("studies")
"""The folder, in the working directory, of the presets' store and runs."""


def names() -> list[str]:
    """Return the names of the presets, without their small twins."""
    there = files("trainscope.studies.presets").iterdir()
    found = sorted(each.name for each in there if each.name.endswith(".toml"))
    stems = [name.removesuffix(".toml") for name in found]
    return [stem for stem in stems if not stem.endswith(SMALL)]


def read(name: str, *, small: bool = False) -> tuple[str, dict[str, Any]]:
    """Return a preset as it is written, and what TOML makes of it.

    Args:
        name: As `names` returns it.
        small: Its twin that ends here in minutes.

    Raises:
        StudyError: There is none of that name.
    """
    if name not in names():
        raise StudyError(unknown(name, names(), "preset"))
    place = files("trainscope.studies.presets") / f"{name}{SMALL * small}.toml"
    text = place.read_text(encoding="utf-8")
    return text, parsed(text, file_of(name, small=small))


def file_of(name: str, *, small: bool = False) -> Path:
    """Return where a preset would lie as a file of the user's: its store is beside that."""
    return STORES / f"{name}{SMALL * small}.toml"


def title(name: str, *, small: bool = False) -> str:
    """Return the first line of a preset, which says what it is."""
    return read(name, small=small)[0].partition("\n")[0].lstrip("# ")
