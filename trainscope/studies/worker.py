"""A worker as a process: `python -m trainscope.studies.worker ORDER`, started by a driver."""

from __future__ import annotations

import signal
import sys

from trainscope.studies.orders import obey, ordered
from trainscope.studies.telling import lines


def main() -> int:
    """Obey the order of the command line; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    order = ordered(sys.argv[1])
    try:
        obey(order, lines(lambda text: print(text, file=sys.stderr, flush=True)))  # noqa: T201
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
