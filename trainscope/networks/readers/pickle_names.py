"""The classes and functions that a pickle names, read without running it."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO

_STRINGS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
)
_STORES = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})


def named_in(stream: IO[bytes]) -> list[str]:
    """Return every `module.name` that one pickle, up to its STOP, would look up, in order.

    For telling a person only: what may be loaded is for torch's own safe unpickler to decide.

    Args:
        stream: At the pickle's start; left behind its end.

    Raises:
        ValueError: The bytes are not a pickle.
    """
    return list(dict.fromkeys(each_named(stream)))


def each_named(stream: IO[bytes]) -> Iterator[str]:
    """Yield what `named_in` returns, as it comes, some of it more than once.

    Raises:
        ValueError: The bytes, from here on, are not a pickle.
    """
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    top: str | None = None  # the top of the stack, where it is a string
    for opcode, arg, _ in pickletools.genops(stream):
        if opcode.name in _STORES:
            memo[len(memo) if arg is None else int(arg)] = top
            continue
        if opcode.name in ("GLOBAL", "INST"):
            yield str(arg).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            yield ".".join(strings[-2:])
        top = None
        if opcode.name in _STRINGS:
            top = arg.decode("latin1") if isinstance(arg, bytes) else str(arg)
        elif opcode.name in _FETCHES:
            top = memo.get(int(str(arg)))
        if top is not None:
            strings = [*strings[-1:], top]
