"""Which process does a run, so that a worker of this machine that died is found at once.

Of another machine nobody can say that but by its silence.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
"""Where Linux tells of processes; elsewhere there is none, and nobody is told apart."""


def this_process() -> str:
    """Return what tells this process from all others of all machines; nothing where that is hard.

    A process id alone is used again, and two machines, or two containers of one, may have it both.
    """
    pid = os.getpid()
    machine, begun = _machine(), _begun(pid)
    return "" if machine is None or begun is None else f"{machine} | {pid} {begun}"


def is_gone(process: str) -> bool:
    """Tell whether a process that `this_process` named was of this machine and is no more."""
    machine, _, told = process.partition(" | ")
    pid, _, begun = told.partition(" ")
    if not pid.isdigit() or machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return _begun(int(pid)) not in (begun, None) or _is_dead(int(pid))


def _machine() -> str | None:
    """Return this boot of this machine, and the container in which process ids are counted."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; nothing where it is unknown."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _begun(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot."""
    told = _stat(pid)
    return told[19] if len(told) > 19 else None


def _is_dead(pid: int) -> bool:
    """Tell whether a process ended, and only its parent has not asked how yet."""
    return _stat(pid)[:1] in (["Z"], ["X"])
