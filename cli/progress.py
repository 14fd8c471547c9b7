"""Progress on stderr: what is being done, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainscope.cli.printing import progress_console
from trainscope.records.text import plain


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Lend a function that says what is done next.

    On a terminal the present step spins and the past ones stay as lines; elsewhere every step is a
    line.
    """
    from rich.text import Text

    console = progress_console()
    begun = time.monotonic()
    with console.status("starting") as status:

        def tell(step: str) -> None:
            words = Text.assemble((f"{time.monotonic() - begun:6.1f} s", "dim"), f"  {plain(step)}")
            console.print(words, soft_wrap=True)
            status.update(Text(plain(step)))

        yield tell
