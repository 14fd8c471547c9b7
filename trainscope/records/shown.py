"""Records that a notebook shows; how they look is a matter of `trainscope.report`."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Shown:
    """A record with a piece of HTML for notebooks.

    The room that writes it stands above all records, so it is found by name and when it is needed.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return what a notebook shows, without scripts or styles."""
        notebook: Any = import_module("trainscope.report.notebook")
        found: str = notebook.shown(self)
        return found
