"""Studies that come with trainscope: tables of papers, in full size and in small."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from trainscope.errors import StudyError
from trainscope.studies.plain import unknown
from trainscope.studies.study import Study

PREFIX = "preset:"
SMALL = "-small"
"""The end of the name of a small twin's file."""


def names() -> list[str]:
    """Return the names of the presets, without their small twins."""
    found = sorted(each.name for each in files(__name__).iterdir() if each.name.endswith(".toml"))
    stems = [name.removesuffix(".toml") for name in found]
    return [stem for stem in stems if not stem.endswith(SMALL)]


def text(name: str, *, small: bool = False) -> str:
    """Return a preset as it is written.

    Raises:
        StudyError: There is none of that name.
    """
    if name not in names():
        raise StudyError(unknown(name, names(), "preset"))
    return (files(__name__) / f"{name}{SMALL * small}.toml").read_text(encoding="utf-8")


def preset(name: str, *, small: bool = False, folder: Path | None = None) -> Study:
    """Return a preset as a study, whose store is in a folder.

    Args:
        name: As `names` returns it.
        small: Its twin that ends here in minutes.
        folder: Of the store; by default `studies` in the working directory.

    Raises:
        StudyError: There is none of that name.
    """
    written = text(name, small=small)
    place = (folder or Path("studies")) / f"{name}{SMALL * small}.toml"
    return Study.parse(written, place)


def title(name: str, *, small: bool = False) -> str:
    """Return the first line of a preset, which says what it is."""
    return text(name, small=small).partition("\n")[0].lstrip("# ")
