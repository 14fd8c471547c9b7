"""Progress on stderr: what is being done, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Lend a function that says what is done next.

    On a terminal the present step spins and the past ones stay as lines; elsewhere every step is a
    line.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    begun = time.monotonic()
    with console.status("starting") as status:

        def tell(step: str) -> None:
            console.print(f"[dim]{time.monotonic() - begun:6.1f} s[/dim]  {step}", soft_wrap=True)
            status.update(step)

        yield tell
