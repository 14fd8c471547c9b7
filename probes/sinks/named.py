"""Sinks by name, from a table that other packages add to, and by what else a person gives."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from trainscope.errors import ProbeError
from trainscope.probes.sinks.json_lines import JsonLines
from trainscope.probes.sinks.logger import LOGGER, Logger
from trainscope.probes.sinks.sink import Calls, Sink

GROUP = "trainscope.sinks"
ALL, NONE = "all", "none"


def installed() -> dict[str, EntryPoint]:
    """Return every sink that has a name, ours and other packages'; nothing is imported for it."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}


def find(name: str) -> Sink:
    """Return a new sink by its name, in any case of letters.

    Raises:
        ProbeError: There is none of that name, or its package is missing.
    """
    points = installed()
    if name.lower() not in points:
        near = difflib.get_close_matches(name.lower(), points, n=2)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ProbeError(f"no sink is named '{name}': {meant}choose from {', '.join(points)}")
    made: object = points[name.lower()].load()()
    if not isinstance(made, Sink):
        raise ProbeError(f"the sink '{name}' has no method write()")
    return made


def named(names: Iterable[str]) -> dict[str, Sink]:
    """Return the sinks that a list names, each once: `all` is every one whose package is there.

    Raises:
        ProbeError: A name is none, or `none` stands beside others.
    """
    asked = list(dict.fromkeys(name.strip().lower() for name in names))
    if NONE in asked:
        if len(asked) > 1:
            raise ProbeError("'none' stands beside other names: leave it out, or the others")
        return {}
    found: dict[str, Sink] = {}
    for name in asked:
        if name != ALL:
            found[name] = find(name)
            continue
        for each in installed():
            try:
                found.setdefault(each, find(each))
            except ProbeError:  # its package is not installed, so it was not meant
                continue
    return found


def as_sink(target: object) -> Sink:
    """Return a sink for what a person gives.

    Args:
        target: A sink; a sink's name ("mlflow", "wandb", "trackio", "tensorboard", or "logger" for
            those of a Trainer); a path (JSON lines); or a function.

    Raises:
        ProbeError: It is none of these, or the path is a folder's, or a package is missing.
    """
    if isinstance(target, io.IOBase):
        raise ProbeError("an open file is no sink: give its path, or a function that writes to it")
    if isinstance(target, Sink) and not isinstance(target, type):
        return target
    if isinstance(target, str) and (sink := _by_name(target)) is not None:
        return sink
    if isinstance(target, str | Path):
        if Path(target).is_dir():
            raise ProbeError(f"{str(target)!r} is a folder: give a file for JSON lines")
        return JsonLines(target)
    if callable(target):
        return Calls(target)
    raise ProbeError(
        f"{type(target).__name__} is no sink: give a path, a function, or an object with write()"
    )


def as_sinks(target: object) -> Sequence[Sink]:
    """Return the sinks of one target or of a list of them; None is none."""
    many = target if isinstance(target, list | tuple) else [] if target is None else [target]
    return [as_sink(each) for each in many]


def _by_name(text: str) -> Sink | None:
    """Return the sink of a name; None for a text that is rather a file's name.

    Raises:
        ProbeError: It is nearly a name.
    """
    if text.lower() == LOGGER:
        return Logger()
    points = installed()
    if text.lower() in points:
        return find(text)
    if re.fullmatch(r"[\w-]+", text) is None:  # a dot or a folder is in it
        return None
    near = difflib.get_close_matches(text.lower(), [*points, LOGGER], n=1, cutoff=0.75)
    if near and not Path(text).exists():
        raise ProbeError(
            f"no sink is named '{text}': did you mean '{near[0]}'? A file of JSON lines of that "
            f"name is asked for with ./{text}"
        )
    return None
