"""Where the command begins: Ctrl-C before all of it is imported ends it as later, in one line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `trainscope` command."""
    try:
        from trainscope.cli.main import main as command
    except KeyboardInterrupt:
        sys.stderr.write("trainscope: interrupted\n")
        sys.exit(130)
    command()
