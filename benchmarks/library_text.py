"""A text that every machine with Python has: the sources of its standard library."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def text_of_the_library(most: int) -> str:
    """Return so many characters of the sources, in a fixed, shuffled order of the files."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if not LEFT_OUT & set(path.relative_to(root).parts)
    ]
    random.Random(0).shuffle(files)
    return "\n".join(path.read_text("utf-8", errors="replace") for path in files)[:most]
