"""Code of the user's own, named as `package.module:name`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from trainscope.errors import TrainscopeError


def find_object(spec: str, option: str, error: type[TrainscopeError]) -> Any:
    """Import what a text names.

    The working directory is searched first, as `python -m` does.

    Args:
        spec: "package.module:name".
        option: What the text was given to, for messages, like "--model".
        error: The kind of error to raise.

    Raises:
        TrainscopeError: Of the kind asked for: the text is of another form, the import fails, or
            the name is not there.
    """
    module_name, colon, path = spec.partition(":")
    if not colon or not module_name or not path:
        raise error(f"{option} takes package.module:factory, and '{spec}' is not that")
    file = Path(module_name)
    if file.stem != module_name and (module_name.endswith(".py") or "/" in module_name):
        raise error(
            f"{option} takes package.module:factory, and '{module_name}' is a file: write "
            f"{file.stem}:{path}" + (f" from {file.parent}" if len(file.parts) > 1 else "")
        )
    try:
        with working_directory():
            found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as caught:
        missing = caught.name or module_name
        raise error(
            f"{option} {spec}: there is no module '{missing}' here or among the installed packages"
        ) from caught
    except (Exception, SystemExit) as caught:  # whatever the user's code raises
        raise error(
            f"{option} {spec}: importing '{module_name}' failed: {reason(caught)}{_hint(caught)}"
        ) from caught
    for name in path.split("."):
        if not hasattr(found, name):
            raise error(f"{option} {spec}: module '{module_name}' has no '{path}'")
        found = getattr(found, name)
    return found


def find_callable(spec: str, option: str, error: type[TrainscopeError]) -> Callable[..., object]:
    """Import the function or class that a text names, as `find_object` does.

    Raises:
        TrainscopeError: Of the kind asked for, also where what is named cannot be called.
    """
    found = find_object(spec, option, error)
    if not callable(found):
        raise error(
            f"{option} {spec}: '{spec.partition(':')[2]}' is not a function or class: write one "
            "that returns it"
        )
    return cast(Callable[..., object], found)


def called(
    factory: Callable[..., object],
    spec: str,
    option: str,
    error: type[TrainscopeError],
    **options: Any,
) -> object:
    """Call a function of the user's own, and return what it returns.

    Args:
        factory: It.
        spec: What it was named as, for messages.
        option: What that was given to.
        error: The kind of error to raise.
        **options: What it is called with.

    Raises:
        TrainscopeError: Of the kind asked for: it raises, or ends the process.
    """
    try:
        with working_directory():
            return factory(**options)
    except (Exception, SystemExit) as caught:  # whatever the user's code raises
        raise error(f"{option} {spec} failed: {reason(caught)}{_hint(caught)}") from caught


def _hint(error: BaseException) -> str:
    """Return what may put right code that ends the process, as scripts do that read arguments."""
    if not isinstance(error, SystemExit):
        return ""
    return (
        ", which would end trainscope too: keep what reads arguments or exits under "
        "if __name__ == '__main__'"
    )


@contextmanager
def working_directory() -> Iterator[None]:
    """Search the working directory first for imports, as `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def reason(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
