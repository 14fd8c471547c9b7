"""Pickles that would break the reader, found by their opcodes before anything is loaded.

What a pickle may name is for the loaders to decide. This keeps it from harming Python itself:
tuples nested so deep that hashing one overruns the stack, and memo numbers or lengths that ask for
memory which the file does not fill.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO

from trainscope.errors import CheckpointError

DEEPEST = 500
"""Tuples inside tuples; Python's C code hashes them by recursion without a limit of its own."""

MOST_OPCODES = 20_000_000
"""The optimizer of a network of a thousand layers takes some hundred thousand."""

_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_FILLED = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""Torch's safe loader makes one of any length that it is told, and zeroes it."""

_MARK = -1

_PICKLES_IN_A_ROW = 5
"""Of the older layout: magic number, version, system, objects, keys of the storages."""


def check_pickles(path: Path, *, archive: bool) -> None:
    """Refuse a file whose pickles cannot be loaded safely even without running their code.

    Args:
        path: A file of `torch.save`.
        archive: It is a zip archive, and not of the older layout.

    Raises:
        CheckpointError: One of its pickles is such, or is not a pickle at all.
    """
    try:
        if archive:
            with zipfile.ZipFile(path) as held:
                _check_declared(held.infolist(), path.stat().st_size)
                for entry in held.infolist():
                    if entry.filename.endswith(".pkl"):
                        check_pickle(io.BytesIO(held.read(entry)))
            return
        with path.open("rb") as file:
            for _ in range(_PICKLES_IN_A_ROW):
                check_pickle(file)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes can fail anywhere
        raise CheckpointError(
            "the file is damaged or cut short; copy or download it again"
        ) from error


def _check_declared(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse an archive whose entries, but for TorchScript's code, are larger than the file."""
    declared = sum(each.file_size for each in entries if "/code/" not in each.filename)
    if declared > size:
        raise CheckpointError(
            f"the file declares {declared:,} bytes and has {size:,}; torch.save does not compress, "
            "so it is not taken"
        )


def check_pickle(stream: IO[bytes]) -> None:
    """Refuse one pickle, up to its STOP, as `check_pickles` does.

    Args:
        stream: At the pickle's start; left behind its end.

    Raises:
        CheckpointError: It nests its objects too deeply or asks for too much.
        ValueError: The bytes are not a pickle.
    """
    stack: list[int] = []  # of every object the tuples it holds inside each other
    memo: dict[int, int] = {}
    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if count > MOST_OPCODES:
            raise CheckpointError(
                f"the file pickles more than {MOST_OPCODES:,} things; no network has so many"
            )
        if opcode.name == "GLOBAL" and arg in _FILLED:
            raise CheckpointError(
                "the file names a bytearray, which can ask for any memory; it is not taken"
            )
        if opcode.name in _STORES:
            place = len(memo) if arg is None else int(str(arg))
            if place > 2 * count + 256:  # the memo of Python's unpickler is as long as its number
                raise CheckpointError(
                    f"the file numbers its objects up to {place:,} and holds fewer; it was not "
                    "written by torch.save"
                )
            memo[place] = stack[-1]
            continue
        if opcode.name in _FETCHES:
            stack.append(memo[int(str(arg))])
            continue
        held = _taken(opcode, stack)
        depth = max(held, default=0) + (opcode.name in _TUPLES)
        if depth > DEEPEST:
            raise CheckpointError("the file nests its objects too deeply; it is not taken")
        made = opcode.stack_after
        stack += [_MARK if each is pickletools.markobject else depth for each in made]


def _taken(opcode: pickletools.OpcodeInfo, stack: list[int]) -> list[int]:
    """Take off the stack what an opcode takes, and return it without the mark."""
    takes = opcode.stack_before
    place = len(stack) - len(takes)
    if pickletools.markobject in takes:  # all above the last mark, it, and what is said below it
        mark = len(stack) - 1 - stack[::-1].index(_MARK)
        place = mark - takes.index(pickletools.markobject)
    if place < 0:
        raise ValueError("the stack is empty")
    held = stack[place:]
    del stack[place:]
    return [depth for depth in held if depth != _MARK]
